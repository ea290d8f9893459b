"""Judo techniques in labeled frames, and what is wrong with them."""
