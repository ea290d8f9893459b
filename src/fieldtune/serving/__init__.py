"""A run put to use: predictions from code."""
