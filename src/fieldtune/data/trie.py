"""Rows as a tree: what they have in common at their beginning is found from the token ids and stands there once.

A row's tokens are the segments on its way from a root to its end. Segments come in depth-first order, so that
everything below a segment follows it without a gap: the shape that attention needs (see `models.block_attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]

# A further segment costs a few calls in each layer, a token about as much as one of them: sharing fewer tokens than
# this, over all rows, is not worth a segment.
FEWEST_TOKENS_SAVED = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [start, end) of rows first .. last - 1 of the sorted rows, which are alike up to `end`."""

    first: int
    last: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def trie_order(rows: Sequence[Ids]) -> list[int]:
    """Indices of the rows in lexicographic order of their ids: rows that begin alike are neighbors."""
    # Big-endian bytes of unsigned numbers sort as the numbers do, and comparing bytes is quick. A place of a picture, a
    # negative id, becomes a large number.
    keys = [row.astype(">u4").tobytes() for row in rows]
    return sorted(range(len(rows)), key=keys.__getitem__)


def segments(rows: Sequence[Ids], fewest_saved: int = FEWEST_TOKENS_SAVED) -> list[Segment]:
    """The tree of rows in `trie_order`, depth first.

    A common beginning becomes a segment of its own if that saves at least `fewest_saved` tokens.
    """
    found: list[Segment] = []
    waiting = [(0, len(rows), 0)] if rows else []  # groups (first, last, tokens that stand in segments above)
    while waiting:
        first, last, start = waiting.pop()
        common = common_prefix(rows[first], rows[last - 1])  # of sorted rows, that of all between them too
        if last - first == 1 or common == len(rows[last - 1]):
            if common > start:
                found.append(Segment(first, last, start, common))
            continue
        if (common - start) * (last - first - 1) >= fewest_saved:
            found.append(Segment(first, last, start, common))
            start = common
        groups = _groups(rows, first, last, common)
        # Rows that end at the branching point are complete if their tokens stand in a segment.
        waiting += [(low, high, start) for low, high in reversed(groups) if len(rows[high - 1]) > start]
    return found


def _groups(rows: Sequence[Ids], first: int, last: int, depth: int) -> list[tuple[int, int]]:
    """Runs of rows with the same token at `depth`; rows that end there come first and are a run of their own."""
    tokens = [int(row[depth]) if len(row) > depth else None for row in rows[first:last]]
    starts = [number for number in range(len(tokens)) if number == 0 or tokens[number] != tokens[number - 1]]
    return [(first + a, first + b) for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)]


def common_prefix(one: Ids, other: Ids) -> int:
    """Tokens at the beginning that two rows have in common."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def fewest_tokens(rows: Sequence[Ids]) -> int:
    """Distinct prefixes of the rows: the fewest tokens that a causal model can compute for them."""
    ordered = [rows[index] for index in trie_order(rows)]
    shared = sum(common_prefix(one, other) for one, other in pairwise(ordered))
    return sum(len(row) for row in rows) - shared
