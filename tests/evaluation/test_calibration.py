"""Calibration on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fieldtune.evaluation.calibration import (
    HOTTEST,
    bin_numbers,
    brier,
    calibration_error,
    coverage,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    reliability,
)
from fieldtune.evaluation.metrics import Resampling

HOW = Resampling(300, 0)
CONFIDENCE = np.array([0.55, 0.58, 0.95, 0.95])
RIGHT = np.array([True, False, True, True])


def test_probabilities_are_the_softmax_of_the_logs() -> None:
    logs = np.log([[0.01, 0.03], [0.2, 0.2]]) - 1000  # far below what exp can hold
    assert probabilities(logs) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))
    hot = probabilities(logs, 2.0)[0]
    assert hot[1] / hot[0] == pytest.approx(math.sqrt(3))
    assert negative_log_likelihood(logs, np.array([1, 0])) == pytest.approx([-math.log(0.75), math.log(2)])


def test_a_temperature_makes_confidence_the_share_that_is_right() -> None:
    """Two labels 4 nats apart, 3 of 4 rows right: the best has 4 / T = log(3 / 1)."""
    logs, targets = np.array([[4.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    found = fit_temperature(logs, targets)
    assert found == pytest.approx(4 / math.log(3), rel=1e-9)
    assert probabilities(logs, found)[0, 0] == pytest.approx(0.75)


def test_the_temperature_is_that_of_the_least_loss() -> None:
    random = np.random.default_rng(3)
    logs, targets = random.normal(0, 3, (200, 5)), random.integers(0, 5, 200)
    targets[:120] = logs[:120].argmax(axis=1)
    found = fit_temperature(logs, targets)
    least = negative_log_likelihood(logs, targets, found).mean()
    for other in np.exp(np.linspace(-2, 2, 401)):
        assert negative_log_likelihood(logs, targets, other).mean() >= least - 1e-12
    slope = [negative_log_likelihood(logs, targets, found * (1 + step)).mean() for step in (-1e-4, 1e-4)]
    assert slope[0] == pytest.approx(slope[1], abs=1e-9)


def test_a_temperature_without_a_bound_is_the_end_of_the_range() -> None:
    assert fit_temperature(np.array([[4.0, 0.0]] * 3), np.array([0, 0, 0])) == pytest.approx(1 / HOTTEST)
    assert fit_temperature(np.array([[4.0, 0.0]] * 3), np.array([1, 1, 1])) == pytest.approx(HOTTEST)


def test_brier_is_the_squared_distance() -> None:
    shares = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert brier(shares, np.array([0, 1, 1])) == pytest.approx([0.09 + 0.04 + 0.01, 0.0, 2.0])


def test_bins() -> None:
    """Of equal width: above the lower bound, up to the upper one. Of equal mass: rows alike stay together."""
    assert list(bin_numbers(np.array([0.05, 0.1, 0.11, 0.95, 1.0]), "width", 10)) == [0, 0, 1, 9, 9]
    assert list(bin_numbers(np.array([0.9, 0.1, 0.2, 0.8]), "mass", 2)) == [1, 0, 0, 1]
    assert list(bin_numbers(np.array([0.5, 0.5, 0.5, 0.8]), "mass", 2)) == [0, 0, 0, 1]


def test_the_calibration_error() -> None:
    """(0.5, 0.6]: two rows, confidence 0.565, half right; (0.9, 1]: two rows, 0.95, all right."""
    wanted = 0.5 * 0.065 + 0.5 * 0.05
    found = calibration_error(CONFIDENCE, RIGHT, HOW, "width", 10)
    assert found.value == pytest.approx(wanted) and found.n == 4 and found.low < found.high
    assert calibration_error(CONFIDENCE, RIGHT, HOW, "mass", 2).value == pytest.approx(wanted)
    assert calibration_error(CONFIDENCE, RIGHT, HOW, "width", 1).value == pytest.approx(0.7575 - 0.75)
    sure = calibration_error(np.ones(3), np.array([True] * 3), HOW)
    assert (sure.value, sure.low, sure.high) == (0.0, 0.0, 0.0)


def test_the_interval_of_the_error_draws_whole_groups() -> None:
    names = ["anna", "anna", "bert", "bert"]
    found = calibration_error(CONFIDENCE, RIGHT, Resampling(2000, 0, names), "width", 10)
    assert found.low == pytest.approx(0.05) and found.high == pytest.approx(0.065)  # both Bert, both Anna


def test_reliability_tells_of_the_bins_that_hold_a_row() -> None:
    first, second = reliability(CONFIDENCE, RIGHT, HOW, "width", 10)
    assert first["n"] == second["n"] == 2
    assert first["confidence"] == pytest.approx(0.565) and first["accuracy"]["value"] == 0.5
    assert second["confidence"] == pytest.approx(0.95) and second["accuracy"]["value"] == 1.0
    assert second["accuracy"]["low"] == pytest.approx(2 / (2 + 1.959964**2))  # Wilson's of two of two


def test_coverage_is_what_is_answered_from_a_threshold_on() -> None:
    found = coverage(
        np.array([0.4, 0.75, 0.8, 0.99]), np.array([False, False, True, True]), (0.0, 0.7, 0.8, 0.9, 1.0), HOW
    )
    assert [row["covered"] for row in found] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [row["n"] for row in found] == [4, 3, 2, 1, 0]
    assert [row["accuracy"] and row["accuracy"]["value"] for row in found] == [0.5, pytest.approx(2 / 3), 1, 1, None]
