"""A frame of text becomes a typed one: which column is which property, and what its texts mean."""
