"""Held-out loss: the same sum that training minimises, over rows that it does not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fieldtune.data.batches import collate
from fieldtune.data.encode import Encoded
from fieldtune.models.loss import LanguageModelLoss


@torch.no_grad()
def row_losses(
    network: LanguageModelLoss,
    rows: Sequence[Encoded],
    pad_id: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> list[tuple[float, int]]:
    """(loss summed over the row's supervised tokens in nats, their number) of each row, in order.

    Memory does not grow with the number of rows: no logits are kept. on_batch is called with the rows done.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    results: dict[int, tuple[float, int]] = {}
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    try:
        for first in range(0, len(rows), batch_size):
            numbers = by_length[first : first + batch_size]
            batch = collate([rows[number] for number in numbers], pad_id)
            losses = network.token_losses(
                batch["ids"].to(device), batch["where"].to(device), batch["targets"].to(device)
            )
            owner = batch["where"] // batch["ids"].shape[1]
            sums = torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, owner, losses.double().cpu())
            for number, value in zip(numbers, sums.tolist(), strict=True):
                results[number] = (value, rows[number].supervised)
            on_batch(len(numbers))
    finally:
        network.train(was_training)
    return [results[number] for number in range(len(rows))]


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """Nats per supervised token."""
    return sum(value for value, _ in losses) / sum(count for _, count in losses)
