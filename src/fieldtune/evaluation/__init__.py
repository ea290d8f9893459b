"""Measuring a tuned model against its base, and the report of it."""
