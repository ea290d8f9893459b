"""Metrics as pure functions of plain values: text measures, means with intervals, paired differences."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

RUN = 8  # words in a row that count as copied
CONFIDENCE = 0.95
Z = 1.959964  # of the normal distribution, at 95 %


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are drawn: so many resamples, from a seed.

    groups: whom each row is of; rows of one depend on each other, so they are drawn together. None: each is its own.
    """

    resamples: int
    seed: int
    groups: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval, over n rows."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def words(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return re.findall(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*", text.casefold())


def repetition(text: str, n: int = 4) -> float | None:
    """Share of a text's n-word runs that stood in it before; None for a text shorter than that."""
    found = words(text)
    runs = [tuple(found[start : start + n]) for start in range(len(found) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else None


def run_hashes(texts: Iterable[str], n: int = RUN) -> NDArray[np.uint64]:
    """Sorted hashes of all n-word runs of some texts, eight bytes a distinct run."""
    hashes = {value for text in texts for value in _runs(text, n)}
    return np.sort(np.fromiter(hashes, dtype=np.uint64, count=len(hashes)))


def overlap(text: str, known: NDArray[np.uint64], n: int = RUN) -> float | None:
    """Share of a text's n-word runs that stand word for word in the known texts (see `run_hashes`)."""
    runs = np.array(_runs(text, n), dtype=np.uint64)
    if len(runs) == 0:
        return None
    places = np.minimum(np.searchsorted(known, runs), max(len(known) - 1, 0))
    return float(np.mean(known[places] == runs)) if len(known) else 0.0


def _runs(text: str, n: int) -> list[int]:
    found = words(text)
    joined = (" ".join(found[start : start + n]) for start in range(len(found) - n + 1))
    return [int.from_bytes(blake2b(run.encode(), digest_size=8).digest(), "little") for run in joined]


def mean_interval(values: Sequence[float | None], how: Resampling) -> Interval | None:
    """Mean over the rows that have a value, with its percentile bootstrap interval (Efron 1979).

    Groups are drawn whole (the cluster bootstrap; Davison and Hinkley 1997, 3.8). A share that is 0 or 1 in every row
    has no spread to resample; then the interval is Wilson's (1927), of as many trials as there are groups.
    """
    present = [number for number, value in enumerate(values) if value is not None]
    if not present:
        return None
    found = np.array([values[number] for number in present], dtype=np.float64)
    numbers = places(how, present)
    mean = float(found.mean())
    if mean in (0.0, 1.0) and np.all(found == mean):
        return Interval(mean, *_wilson(mean, int(numbers.max()) + 1), len(found))
    means = _resampled_ratios(found, np.ones(len(found)), numbers, how)
    return Interval(mean, *percentiles(means), len(found))


def ratio_interval(pairs: Sequence[tuple[float, int]], how: Resampling) -> Interval:
    """Sum of losses over sum of tokens, rows resampled: nats per token."""
    losses, counts = _columns(pairs)
    ratios = _resampled_ratios(losses, counts, places(how, range(len(pairs))), how)
    return Interval(float(losses.sum() / counts.sum()), *percentiles(ratios), len(pairs))


def ratio_difference(
    base: Sequence[tuple[float, int]], tuned: Sequence[tuple[float, int]], how: Resampling
) -> Interval:
    """Tuned minus base of `ratio_interval`, the same rows, with the same tokens, resampled for both."""
    (before, counts), (after, _) = _columns(base), _columns(tuned)
    difference = _resampled_ratios(after - before, counts, places(how, range(len(base))), how)
    return Interval(float((after - before).sum() / counts.sum()), *percentiles(difference), len(base))


def difference_interval(
    base: Sequence[float | None], tuned: Sequence[float | None], how: Resampling
) -> Interval | None:
    """Mean of tuned minus base over the rows that have both, with its paired bootstrap interval."""
    pairs = [None if b is None or t is None else (b, t) for b, t in zip(base, tuned, strict=True)]
    present = [number for number, pair in enumerate(pairs) if pair is not None]
    if not present:
        return None
    differences = np.array([pair[1] - pair[0] for pair in pairs if pair is not None], dtype=np.float64)
    weights = np.ones(len(differences))
    means = _resampled_ratios(differences, weights, places(how, present), how)
    return Interval(float(differences.mean()), *percentiles(means), len(differences))


def perplexity(interval: Interval) -> Interval:
    """exp of a loss in nats, its bounds with it."""
    value, low, high = (math.exp(min(x, 700.0)) for x in (interval.value, interval.low, interval.high))
    return Interval(value, low, high, interval.n)


def _columns(pairs: Sequence[tuple[float, int]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = np.array(pairs, dtype=np.float64)
    return table[:, 0], table[:, 1]


def places(how: Resampling, rows: Sequence[int]) -> NDArray[np.int64]:
    """The number of the group of each row, from 0 in the order in which they come; without groups a row is its own."""
    if how.groups is None:
        return np.arange(len(rows))
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(how.groups[row], len(numbers)) for row in rows])


def _resampled_ratios(
    values: NDArray[np.float64], weights: NDArray[np.float64], places: NDArray[np.int64], how: Resampling
) -> NDArray[np.float64]:
    """Sum of the values over sum of the weights, in resamples of whole groups [resamples]."""
    sums, totals = np.bincount(places, values), np.bincount(places, weights)
    drawn = np.random.default_rng(how.seed).integers(0, len(sums), size=(how.resamples, len(sums)))
    ratios: NDArray[np.float64] = sums[drawn].sum(axis=1) / totals[drawn].sum(axis=1)
    return ratios


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """The bounds between which 95 % of some resampled values lie."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _wilson(share: float, rows: int) -> tuple[float, float]:
    middle = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2)) / (1 + Z**2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)
