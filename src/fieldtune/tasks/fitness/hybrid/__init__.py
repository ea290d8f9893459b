"""The hybrid coach: context from the database, answer from a model, change by rules. See docs/hybrid.md."""
