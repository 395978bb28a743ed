"""The life of export jobs: triggered, awaited, fetched, and remembered through any death."""
