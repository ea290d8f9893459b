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


def mean_interval(values: Sequence[float | None], resamples: int, seed: int) -> Interval | None:
    """Mean over the rows that have a value, with its percentile bootstrap interval (Efron 1979).

    A share that is 0 or 1 in every row has no spread to resample; then the interval is Wilson's (1927).
    """
    present = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(present) == 0:
        return None
    value = float(present.mean())
    if value in (0.0, 1.0) and np.all(present == value):
        low, high = _wilson(value, len(present))
        return Interval(value, low, high, len(present))
    means = present[_resampled(len(present), resamples, seed)].mean(axis=1)
    return Interval(value, *_percentiles(means), len(present))


def ratio_interval(pairs: Sequence[tuple[float, int]], resamples: int, seed: int) -> Interval:
    """Sum of losses over sum of tokens, rows resampled: nats per token."""
    losses, counts = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    drawn = _resampled(len(pairs), resamples, seed)
    ratios = losses[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return Interval(float(losses.sum() / counts.sum()), *_percentiles(ratios), len(pairs))


def ratio_difference(
    base: Sequence[tuple[float, int]], tuned: Sequence[tuple[float, int]], resamples: int, seed: int
) -> Interval:
    """Tuned minus base of `ratio_interval`, the same rows resampled for both."""
    drawn = _resampled(len(base), resamples, seed)

    def ratios(pairs: Sequence[tuple[float, int]], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        losses, counts = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
        result: NDArray[np.float64] = losses[rows].sum(axis=1) / counts[rows].sum(axis=1)
        return result

    everything = np.arange(len(base))[None, :]
    value = float((ratios(tuned, everything) - ratios(base, everything))[0])
    return Interval(value, *_percentiles(ratios(tuned, drawn) - ratios(base, drawn)), len(base))


def difference_interval(
    base: Sequence[float | None], tuned: Sequence[float | None], resamples: int, seed: int
) -> Interval | None:
    """Mean of tuned minus base over the rows that have both, with its paired bootstrap interval."""
    pairs = [(b, t) for b, t in zip(base, tuned, strict=True) if b is not None and t is not None]
    if not pairs:
        return None
    differences = np.array([t - b for b, t in pairs], dtype=np.float64)
    means = differences[_resampled(len(pairs), resamples, seed)].mean(axis=1)
    return Interval(float(differences.mean()), *_percentiles(means), len(pairs))


def perplexity(interval: Interval) -> Interval:
    """exp of a loss in nats, its bounds with it."""
    value, low, high = (math.exp(min(x, 700.0)) for x in (interval.value, interval.low, interval.high))
    return Interval(value, low, high, interval.n)


def _resampled(rows: int, resamples: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, rows, size=(resamples, rows))


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _wilson(share: float, rows: int) -> tuple[float, float]:
    middle = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2)) / (1 + Z**2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)
