"""Deal rows to train, val and test so that no group is in two of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune.errors import UserError
from fieldtune.prepare.near_duplicates import connected_components

Groups = Sequence[str | int] | NDArray[Any]

HELD_OUT_PART = 4  # a group of more than 1/4 of a held-out split would be most of what it measures


def join_groups(a: Groups, b: Groups) -> NDArray[np.int64]:
    """Groups that keep together whatever either grouping keeps together, int64 [rows].

    a, b: group of each row [rows], say `Example.group` and the near-duplicate group. A group of the result is
    a connected component, numbered by its smallest row index. Raises ValueError if the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"two groupings of the same rows must be of one length, got {len(a)} and {len(b)}")
    rows = np.arange(len(a))
    edges = (np.concatenate([rows, rows]), np.concatenate([_first_rows(a), _first_rows(b)]))
    return connected_components(len(a), *edges)


def assign(groups: Groups, shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Index of the split of each row, int64 [rows]; whole groups only.

    groups: the group of each row [rows]. shares: of each split, relative to their sum, train first. The rows
    wanted of each split are its share by largest remainder. The groups are dealt in seeded random order, larger
    ones first, each to the split that is furthest below its share among those that it fits; a group larger than
    a quarter of a held-out split goes to train while it fits there. With groups of one row the counts are
    exactly those wanted. Every split with a share gets at least one group.

    Raises `UserError` for shares that are not 0 or more, and for fewer groups than splits with a share.
    """
    if any(not math.isfinite(share) or share < 0 for share in shares) or not any(shares):
        given = ", ".join(str(share) for share in shares)
        raise UserError(f"the split shares are {given}; they must be 0 or more and not all 0; try 0.85, 0.1, 0.05")
    first, inverse, sizes = np.unique(_first_rows(groups), return_inverse=True, return_counts=True)
    splits = sum(share > 0 for share in shares)
    if len(first) < splits:
        raise UserError(
            f"{len(groups)} rows form only {len(first)} independent groups; at least {splits} are needed to"
            " split; give more varied rows or raise data.near_duplicate"
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    split_of = np.empty(len(sizes), dtype=np.int64)
    split_of[order] = _deal([int(size) for size in sizes[order]], _targets(len(groups), shares))
    return split_of[inverse]


def _first_rows(groups: Groups) -> NDArray[np.int64]:
    """The first row of each row's group [rows]."""
    first: dict[Any, int] = {}
    values = groups.tolist() if isinstance(groups, np.ndarray) else groups
    found = (first.setdefault(group, row) for row, group in enumerate(values))
    return np.fromiter(found, dtype=np.int64, count=len(groups))


def _targets(rows: int, shares: Sequence[float]) -> list[int]:
    """Rows wanted of each split: largest remainder, and at least one where the share is above 0."""
    exact = [rows * share / sum(shares) for share in shares]
    targets = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda split: targets[split] - exact[split])
    for split in by_remainder[: rows - sum(targets)]:
        targets[split] += 1
    for split, share in enumerate(shares):
        if share > 0 and targets[split] == 0:
            targets[targets.index(max(targets))] -= 1
            targets[split] = 1
    return targets


def _deal(sizes: list[int], targets: list[int]) -> list[int]:
    """The split of each group; sizes are those of the groups in the order of dealing."""
    wanted = [split for split, target in enumerate(targets) if target]
    counts = [0] * len(targets)
    dealt = []
    for number, size in enumerate(sizes):
        empty = [split for split in wanted if not counts[split]]
        allowed = empty if len(sizes) - number <= len(empty) else wanted
        fitting = [split for split in allowed if _fits(size, split, counts, targets)]
        if fitting:
            chosen = min(fitting, key=lambda split: counts[split] / targets[split])
        else:
            chosen = max(allowed, key=lambda split: targets[split] - counts[split])
        counts[chosen] += size
        dealt.append(chosen)
    return dealt


def _fits(size: int, split: int, counts: list[int], targets: list[int]) -> bool:
    most = targets[split] if split == 0 else max(1, targets[split] // HELD_OUT_PART)
    return size <= min(most, targets[split] - counts[split])
