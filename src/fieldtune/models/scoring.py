"""Held-out loss: the same sum that training minimizes, over rows that it does not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fieldtune.config import Packing
from fieldtune.data.batches import MicroBatch, collate, idle_batch, moved, with_media
from fieldtune.data.broken_media import BrokenRows
from fieldtune.data.encode import Encoded
from fieldtune.data.media import BrokenMedia
from fieldtune.data.packing import pack_for_scoring
from fieldtune.data.trie import trie_order
from fieldtune.models.loss import LanguageModelLoss


@torch.no_grad()
def row_losses(
    network: LanguageModelLoss,
    rows: Sequence[Encoded],
    pad_id: int,
    batch_size: int,
    packing: Packing = Packing.none,
    on_batch: Callable[[int], None] = lambda rows: None,
    broken: BrokenRows | None = None,
) -> list[tuple[float, int]]:
    """(loss summed over the row's supervised tokens in nats, their number) of each row, in order.

    Memory does not grow with the number of rows: no logits are kept. on_batch is called with the rows done. broken:
    takes the rows that cannot be read, which get no loss of no token, (0, 0); without it they are a `BrokenMedia`.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    results: dict[int, tuple[float, int]] = {}
    # Rows side by side have a length in common, or a beginning.
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    order = by_length if packing is Packing.none else trie_order([row.ids for row in rows])
    try:
        for first in range(0, len(rows), batch_size):
            numbers = order[first : first + batch_size]
            kept, batch, owner = _read(rows, numbers, packing, pad_id, broken)
            if kept:
                losses = network.token_losses(**moved(batch, device))
                sums = torch.zeros(len(kept), dtype=torch.float64).index_add_(0, owner, losses.double().cpu())
                results |= {n: (value, rows[n].supervised) for n, value in zip(kept, sums.tolist(), strict=True)}
            on_batch(len(numbers))
    finally:
        network.train(was_training)
    return [results.get(number, (0.0, 0)) for number in range(len(rows))]


def _read(
    rows: Sequence[Encoded], numbers: Sequence[int], packing: Packing, pad_id: int, broken: BrokenRows | None
) -> tuple[list[int], MicroBatch, Tensor]:
    """Of some rows those that can be read, together with their media, and the row of each label among them."""
    while True:
        kept = [number for number in numbers if broken is None or not broken.holds(rows[number])]
        if not kept:
            return [], idle_batch(), torch.zeros(0, dtype=torch.int64)
        batch, owner = _together([rows[number] for number in kept], packing, pad_id)
        try:
            return kept, with_media(batch), owner
        except BrokenMedia as error:
            if broken is None:
                raise
            broken.add(error)


def _together(rows: Sequence[Encoded], packing: Packing, pad_id: int) -> tuple[MicroBatch, Tensor]:
    """The rows as one forward pass, and the row that each of its labels belongs to."""
    if packing is Packing.none:
        batch = collate(rows, pad_id)
        return batch, batch["where"] // batch["ids"].shape[1]
    batch, owners = pack_for_scoring(rows, share=packing is Packing.shared_prefix)
    return batch, torch.from_numpy(owners)


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """Nats per supervised token."""
    return sum(value for value, _ in losses) / sum(count for _, count in losses)
