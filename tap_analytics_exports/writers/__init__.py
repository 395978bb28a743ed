"""Typed frames become lines or files, columnar."""
