"""From examples to a data set: near-duplicates, mixtures of sources, and splits that share no group."""
