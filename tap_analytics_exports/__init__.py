"""Singer tap for analytics vendors that offer exports."""
