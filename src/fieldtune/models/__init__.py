"""Models: where weights come from, adapters, generation."""
