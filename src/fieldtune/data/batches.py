"""What a model is given: micro-batches, and the windows of them that make an optimizer step; padded rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from fieldtune.data.encode import Encoded
from fieldtune.data.media import MediaBatch, media_of
from fieldtune.models.layout import Layout


class MicroBatch(TypedDict):
    """What one forward pass sees: padded rows (no layout), or a pack.

    ids [rows, length], or [1, tokens] of a pack: token ids, below 0 where a picture stands. where [labels]: flat
    positions in `ids` whose next token is trained. targets [labels]: those next tokens. counts [labels]: how many rows
    have this label (1 without sharing). positions [1, tokens]: place of a pack's token in its row, or [axes, rows,
    tokens] where a model has several for a token. layout: which tokens of a pack see which. media: None also before
    `with_media`.
    """

    ids: Tensor
    where: Tensor
    targets: Tensor
    counts: Tensor
    positions: Tensor | None
    layout: Layout | None
    media: MediaBatch | None


class Window(TypedDict):
    """One optimizer step: the micro-batches of this process, and the supervised tokens of all processes' micro-batches
    (the loss's denominator).

    trunk: a pass that the micro-batches continue (see `data.packing`), computed before and backpropagated after them.
    """

    trunk: MicroBatch | None
    micro_batches: list[MicroBatch]  # none, where a short window has fewer rows than there are processes
    supervised: int
    tokens: int  # of all processes' rows, padding not counted, common beginnings as often as they occur
    computed: int  # tokens, padding included, that pass through this process's model
    # Supervised tokens of this process's rows that are left out since their media broke; of several processes only,
    # which do not know of each other's
    broken: NotRequired[int]


def collate(rows: Sequence[Encoded], pad_id: int) -> MicroBatch:
    """Rows padded on the right to the longest one. Causal attention never looks right, so no mask is needed."""
    length = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    trained = np.zeros((len(rows), length), dtype=np.bool_)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        trained[number, : len(row.ids)] = row.trained
    # Position t predicts token t + 1.
    row_numbers, columns = np.nonzero(trained[:, 1:])
    return {
        "ids": torch.from_numpy(ids),
        "where": torch.from_numpy(row_numbers * length + columns),
        "targets": torch.from_numpy(ids[row_numbers, columns + 1]),
        "counts": torch.ones(len(columns), dtype=torch.int64),
        "positions": _padded_positions(rows, length),
        "layout": None,
        "media": None,
    }


def _padded_positions(rows: Sequence[Encoded], length: int) -> Tensor | None:
    if rows[0].positions is None:
        return None
    positions = np.zeros((len(rows[0].positions), len(rows), length), dtype=np.int64)
    for number, row in enumerate(rows):
        assert row.positions is not None
        positions[:, number, : len(row.ids)] = row.positions
    return torch.from_numpy(positions)


def with_media(batch: MicroBatch) -> MicroBatch:
    """The batch with the pictures whose places stand in it; reads their files."""
    return {**batch, "media": media_of(batch["ids"])}


def window_with_media(window: Window) -> Window:
    """The window with the pictures of each of its passes."""
    trunk = window["trunk"]
    return {
        **window,
        "trunk": with_media(trunk) if trunk is not None else None,
        "micro_batches": [with_media(batch) for batch in window["micro_batches"]],
    }


def idle_batch() -> MicroBatch:
    """A micro-batch without a label: for a process that has no row left but must join the others' forward pass."""
    none = torch.zeros(0, dtype=torch.int64)
    ids = torch.zeros(1, 1, dtype=torch.int64)
    return {
        "ids": ids,
        "where": none,
        "targets": none,
        "counts": none,
        "positions": None,
        "layout": None,
        "media": None,
    }


def moved(batch: Any, device: torch.device) -> Any:
    """A micro-batch with its tensors on a device."""
    if isinstance(batch, dict):
        return {name: moved(value, device) for name, value in batch.items()}
    return batch.to(device) if isinstance(batch, Tensor) else batch


def pad_window(rows: Sequence[Encoded], micro_batch_size: int, pad_id: int) -> Window:
    """A window of padded micro-batches. Rows of like length share one: less padding, the same sum."""
    rows = sorted(rows, key=lambda row: len(row.ids))
    cuts = range(0, len(rows), micro_batch_size)
    batches = [collate(rows[first : first + micro_batch_size], pad_id) for first in cuts]
    return {
        "trunk": None,
        "micro_batches": batches,
        "supervised": sum(row.supervised for row in rows),
        "tokens": sum(len(row.ids) for row in rows),
        "computed": sum(batch["ids"].numel() for batch in batches),
    }
