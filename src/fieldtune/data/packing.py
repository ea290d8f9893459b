"""Rows of an optimizer step laid out in packs: no padding, and, if asked, each common beginning computed once.

The rows are put in trie order and cut into micro-batches. A common beginning of rows within one micro-batch stands
there once; one of rows in several micro-batches stands in the window's *trunk*, a pass of its own that the
micro-batches continue: its keys' and values' gradients are summed over them and it is backpropagated once. So a window
computes each distinct prefix once, and holds the activations of the trunk and of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from fieldtune.data.batches import MicroBatch, Window
from fieldtune.data.encode import Encoded
from fieldtune.data.trie import FEWEST_TOKENS_SAVED, Ids, Segment, segments, trie_order
from fieldtune.models.layout import Layout

Span = tuple[int, int, int, int]


@dataclass(slots=True)
class _Pass:
    """One forward pass while it is laid out; ranges as in `Layout`."""

    ids: list[Ids] = field(default_factory=list)
    positions: list[npt.NDArray[np.int64]] = field(default_factory=list)
    causal: list[tuple[int, int]] = field(default_factory=list)
    full: list[Span] = field(default_factory=list)
    trunk: list[Span] = field(default_factory=list)
    where: list[npt.NDArray[np.int64]] = field(default_factory=list)
    targets: list[Ids] = field(default_factory=list)
    tokens: int = 0

    def batch(self, *, merged: bool = True) -> MicroBatch:
        """merged: equal labels at one position, of rows that go on alike, become one with its count."""
        where, targets = np.concatenate(self.where), np.concatenate(self.targets).astype(np.int64)
        counts = np.ones_like(targets)
        if merged:
            (where, targets), counts = np.unique(np.stack([where, targets]), axis=1, return_counts=True)
        return {
            "ids": torch.from_numpy(np.concatenate(self.ids).astype(np.int64))[None],
            "positions": torch.from_numpy(np.concatenate(self.positions, axis=-1)).unsqueeze(-2),
            "where": torch.from_numpy(where.copy()),
            "targets": torch.from_numpy(targets.copy()),
            "counts": torch.from_numpy(counts),
            "layout": Layout(tuple(self.causal), tuple(self.full), tuple(self.trunk)),
            "media": None,
        }


Placed = tuple[_Pass, int, Segment]  # a segment, the pass it stands in and its first token there


def pack_window(
    rows: Sequence[Encoded],
    micro_batch_size: int,
    *,
    share: bool,
    trunk: bool = True,
    fewest: int = FEWEST_TOKENS_SAVED,
) -> Window:
    """Lay out the rows of an optimizer step, `micro_batch_size` rows a micro-batch.

    share: common beginnings are computed once; trunk: also those of rows in different micro-batches.
    """
    _, rows, ids = _in_order(rows)
    cuts = range(0, len(rows), micro_batch_size)
    if not share:
        tree = _apart(ids)
    elif trunk:
        tree = segments(ids, fewest)
    else:
        tree = [
            Segment(first + s.first, first + s.last, s.start, s.end)
            for first in cuts
            for s in segments(ids[first : first + micro_batch_size], fewest)
        ]
    stem, packs = _Pass(), [_Pass() for _ in cuts]

    def home(segment: Segment) -> _Pass:
        number = segment.first // micro_batch_size
        return packs[number] if number == (segment.last - 1) // micro_batch_size else stem

    _lay_out(tree, home, rows, ids)
    return {
        "trunk": stem.batch() if stem.tokens else None,
        "micro_batches": [one.batch() for one in packs if one.tokens],
        "supervised": sum(row.supervised for row in rows),
        "tokens": sum(len(row.ids) for row in rows),
        "computed": stem.tokens + sum(one.tokens for one in packs),
    }


def pack_for_scoring(rows: Sequence[Encoded], *, share: bool = True) -> tuple[MicroBatch, npt.NDArray[np.int64]]:
    """The rows in one pack, and the row that each label belongs to [labels]."""
    order, rows, ids = _in_order(rows)
    one = _Pass()
    tree = segments(ids) if share else _apart(ids)
    owners = _lay_out(tree, lambda segment: one, rows, ids)
    return one.batch(merged=False), np.asarray(order)[owners]


def _in_order(rows: Sequence[Encoded]) -> tuple[list[int], list[Encoded], list[Ids]]:
    """In trie order: the rows' numbers, the rows, and the tokens of each that a pass needs.

    What comes after the last token with a label, that label included, decides nothing.
    """
    needed = [row.ids[: row.inputs] for row in rows]
    order = trie_order(needed)
    return order, [rows[index] for index in order], [needed[index] for index in order]


def _apart(ids: Sequence[Ids]) -> list[Segment]:
    return [Segment(number, number + 1, 0, len(row)) for number, row in enumerate(ids)]


def _lay_out(
    tree: Sequence[Segment], home: Callable[[Segment], _Pass], rows: Sequence[Encoded], ids: Sequence[Ids]
) -> npt.NDArray[np.int64]:
    """Put each segment of the rows, which are in trie order, into its pass; returns the row of each label."""
    placed: list[Placed] = []
    for segment in tree:
        here = home(segment)
        placed.append((here, here.tokens, segment))
        _append(here, segment, ids[segment.first], rows[segment.first])
    _attend_to_prefixes(placed)
    return _label(placed, rows)


def _append(to: _Pass, segment: Segment, ids: Ids, row: Encoded) -> None:
    to.ids.append(ids[segment.start : segment.end])
    numbers = np.arange(segment.start, segment.end)
    to.positions.append(numbers if row.positions is None else row.positions[:, segment.start : segment.end])
    to.causal.append((to.tokens, to.tokens + segment.length))
    to.tokens += segment.length


def _attend_to_prefixes(placed: Sequence[Placed]) -> None:
    """Everything below a segment attends to it: in each pass that is one range, for the order is depth-first."""
    below: dict[tuple[int, int], tuple[int, int]] = {}  # (number of a segment, id of a pass) -> range
    passes = {id(here): here for here, _, _ in placed}
    above: list[int] = []
    for number, (here, first, segment) in enumerate(placed):
        while above and placed[above[-1]][2].last <= segment.first:
            above.pop()
        for ancestor in above:
            start, _ = below.get((ancestor, id(here)), (first, 0))
            below[ancestor, id(here)] = (start, first + segment.length)
        above.append(number)
    for (ancestor, key), (start, end) in below.items():
        owner, first, segment = placed[ancestor]
        span = (start, end, first, first + segment.length)
        (passes[key].full if passes[key] is owner else passes[key].trunk).append(span)


def _label(placed: Sequence[Placed], rows: Sequence[Encoded]) -> npt.NDArray[np.int64]:
    """Put each row's labels where its tokens stand; returns the number of the row of each label, in that order."""
    owners = []
    labels = [np.flatnonzero(row.trained[1:]) for row in rows]  # position t predicts token t + 1
    for here, first, segment in placed:
        for number in range(segment.first, segment.last):
            inside = labels[number][(labels[number] >= segment.start) & (labels[number] < segment.end)]
            here.where.append(inside - segment.start + first)
            here.targets.append(rows[number].ids[inside + 1])
            owners.append(np.full(len(inside), number))
    return np.concatenate([np.zeros(0, dtype=np.int64), *owners])  # no rows: a process without a share
