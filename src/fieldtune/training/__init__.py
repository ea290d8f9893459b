"""The training stage: the Lightning module, the loss, results."""
