"""Whether a model is right as often as it is sure: errors of calibration, one temperature, answers above a threshold.

Pure functions of arrays: logs [rows, labels] are log-probabilities of each label (see `models.label_scores`), targets
[rows] the right ones' numbers, confidence [rows] the probability of the label that was chosen, right [rows] whether it
is the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fieldtune.evaluation.metrics import Interval, Resampling, mean_interval, percentiles, places

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Equal = Literal["width", "mass"]

BINS = 15  # as in Guo et al. 2017
HOTTEST = 20.0  # temperatures are looked for between 1 / HOTTEST and HOTTEST
HALVINGS = 60  # of the range of the temperature's logarithm: far below 1e-6


def probabilities(logs: Floats, temperature: float = 1.0) -> Floats:
    """Softmax over the labels of the log-probabilities divided by a temperature [rows, labels]."""
    scaled = logs / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def negative_log_likelihood(logs: Floats, targets: Ints, temperature: float = 1.0) -> Floats:
    """-log of the right label's probability among the labels, in nats [rows]."""
    scaled = logs / temperature
    top = scaled.max(axis=1)
    totals = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    losses: Floats = totals - scaled[np.arange(len(targets)), targets]
    return losses


def fit_temperature(logs: Floats, targets: Ints) -> float:
    """The temperature of the least negative log-likelihood (Guo et al. 2017, 4.2); the order of labels stays.

    The likelihood is convex in b = 1 / temperature, so its slope in b, mean(E_b[log] - log of the right one), crosses 0
    once at most: it is bisected. Where it does not cross (all rows right: ever colder; no better than chance: ever
    hotter) the end of the range is returned, 1 / HOTTEST or HOTTEST.
    """
    ahead = logs - logs[np.arange(len(targets)), targets][:, None]  # differences: nothing is lost where they are large

    def slope(inverse: float) -> float:
        return float((probabilities(logs, 1 / inverse) * ahead).sum(axis=1).mean())

    low, high = -np.log(HOTTEST), np.log(HOTTEST)  # of log b
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if slope(float(np.exp(middle))) < 0:  # the loss still falls: colder
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


def brier(shares: Floats, targets: Ints) -> Floats:
    """Squared distance of the probabilities from the right answer, summed over labels [rows]: 0 to 2 (Brier 1950)."""
    wanted = np.zeros_like(shares)
    wanted[np.arange(len(targets)), targets] = 1
    distances: Floats = ((shares - wanted) ** 2).sum(axis=1)
    return distances


def bin_numbers(confidence: Floats, equal: Equal = "width", bins: int = BINS) -> Ints:
    """The bin of each row [rows].

    width: bin m holds m / bins < confidence <= (m + 1) / bins (Guo et al. 2017). mass: as many rows a bin as ties allow
    (Nguyen and O'Connor 2015); rows of one confidence are never parted.
    """
    if equal == "width":
        return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    below = np.searchsorted(np.sort(confidence), confidence, side="left")
    return np.asarray(below * bins // len(confidence), dtype=np.int64)


def calibration_error(
    confidence: Floats, right: Bools, how: Resampling, equal: Equal = "width", bins: int = BINS
) -> Interval:
    """Expected calibration error: |accuracy - mean confidence| of each bin, weighted by its rows, with its interval.

    The bins are those of all rows in every resample. Few rows make the error look larger than it is, in the estimate
    and more so in its resamples, so the interval may lie above the value.
    """
    numbers, group = bin_numbers(confidence, equal, bins), places(how, range(len(right)))
    gaps = np.zeros((int(group.max()) + 1, bins))
    np.add.at(gaps, (group, numbers), confidence - right)
    sizes = np.bincount(group)
    drawn = np.random.default_rng(how.seed).integers(0, len(sizes), size=(how.resamples, len(sizes)))
    times = np.stack([np.bincount(one, minlength=len(sizes)) for one in drawn])  # [resamples, groups]
    errors = np.abs(times @ gaps).sum(axis=1) / (times @ sizes)
    return Interval(float(np.abs(gaps.sum(axis=0)).sum() / len(right)), *percentiles(errors), len(right))


def reliability(
    confidence: Floats, right: Bools, how: Resampling, equal: Equal = "width", bins: int = BINS
) -> list[dict[str, Any]]:
    """The bins that hold a row, from the least sure: {n, confidence (mean), accuracy (an interval)}."""
    numbers = bin_numbers(confidence, equal, bins)
    found = []
    for number in np.unique(numbers):
        inside = numbers == number
        accuracy = share_of(right, inside, how)
        assert accuracy is not None
        found.append({"n": accuracy.n, "confidence": float(confidence[inside].mean()), "accuracy": accuracy.to_json()})
    return found


def coverage(confidence: Floats, right: Bools, thresholds: Sequence[float], how: Resampling) -> list[dict[str, Any]]:
    """What is answered, and how well, if answers below a confidence are left to a person.

    {threshold, covered (share of the rows), n, accuracy (an interval; None where no row is that sure)} a threshold.
    """
    found = []
    for threshold in thresholds:
        sure = confidence >= threshold
        accuracy = share_of(right, sure, how)
        found.append(
            {
                "threshold": threshold,
                "covered": float(sure.mean()),
                "n": int(sure.sum()),
                "accuracy": accuracy.to_json() if accuracy else None,
            }
        )
    return found


def share_of(right: Bools, inside: Bools, how: Resampling) -> Interval | None:
    """The share of the rows inside that are right, with its interval; None if there are none."""
    return mean_interval([float(ok) if held else None for ok, held in zip(right, inside, strict=True)], how)
