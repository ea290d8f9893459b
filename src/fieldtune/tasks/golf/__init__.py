"""Golf swing feedback written from a knowledge base, and a check of answers against it."""
