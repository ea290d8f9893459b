"""Which rows of each source are used, so that the sources have the shares that were asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fieldtune.errors import UserError


def mix(counts: Mapping[str, int], weights: Mapping[str, float], seed: int) -> dict[str, NDArray[np.int64]]:
    """The rows of each source to use: sorted indices [rows used] into that source, in the order of `counts`.

    Rule: the share of a source is its weight over the sum of the weights, counted in rows. No row is used
    twice, so the total is the largest that keeps the shares: the least of rows / share over the sources. The
    rows are the first ones of a seeded permutation of the source, which does not depend on other sources.

    Example: 900 rows of `club` and 2000 of `web` with weights 3 and 1. `club` allows 900 / 0.75 = 1200 rows in
    all, `web` 2000 / 0.25 = 8000; so 1200 are used: all 900 of `club` and 300 of `web`.

    Raises `UserError` for a weight that is not above 0, a name that is in only one of the two, a source
    without rows, and weights so uneven that a source would get no row.
    """
    _check(counts, weights)
    exact = {name: Fraction(str(float(weights[name]))) for name in counts}  # the decimal that was written
    whole = sum(exact.values(), Fraction(0))
    shares = {name: weight / whole for name, weight in exact.items()}
    total = math.floor(min(counts[name] / share for name, share in shares.items()))
    used = {name: math.floor(total * share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: used[name] - total * shares[name])
    for name in by_remainder[: total - sum(used.values())]:
        used[name] += 1
    dropped = [name for name, number in used.items() if number == 0]
    if dropped:
        raise UserError(
            f"the weights leave no row for source {dropped[0]!r} ({total} rows in all);"
            " give it a greater weight, give the others more rows, or leave it out"
        )
    return {name: np.sort(_permutation(name, counts[name], seed)[: used[name]]) for name in counts}


def _permutation(name: str, count: int, seed: int) -> NDArray[np.int64]:
    entropy = int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest())
    return np.random.default_rng(entropy).permutation(count).astype(np.int64)


def _check(counts: Mapping[str, int], weights: Mapping[str, float]) -> None:
    known = ", ".join(counts) or "none"
    if not counts:
        raise UserError("a mixture has no sources; give at least one")
    for name, weight in weights.items():
        if name not in counts:
            raise UserError(f"the weight of {name!r} is for no source; sources: {known}; correct the name")
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f"the weight of source {name!r} is {weight}; give one above 0 or leave it out")
    for name, count in counts.items():
        if name not in weights:
            raise UserError(f"source {name!r} has no weight; give every source one (sources: {known})")
        if count <= 0:
            raise UserError(f"source {name!r} has no rows; it needs at least one; leave it out")
