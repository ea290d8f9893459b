"""Metrics on cases worked out by hand, and intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fieldtune.evaluation.metrics import (
    Interval,
    Resampling,
    difference_interval,
    mean_interval,
    overlap,
    perplexity,
    ratio_difference,
    ratio_interval,
    repetition,
    run_hashes,
    words,
)


def test_words() -> None:
    assert words("The 7-iron: it's 45.5% — Don't STOP.") == ["the", "7-iron", "it's", "45.5", "don't", "stop"]
    assert words("...") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c", None),  # no run of four words
        ("a b c d", 0.0),
        ("a b c d e", 0.0),
        ("a b c d a b c d", 0.2),  # abcd bcda cdab dabc abcd: one of five was there
        ("x x x x x x", 2 / 3),  # three runs, all alike
        ("Keep your head STILL. keep, your head still!", 0.2),
    ],
)
def test_repetition(text: str, expected: float | None) -> None:
    assert repetition(text) == (None if expected is None else pytest.approx(expected))


def test_overlap_counts_runs_of_eight_words() -> None:
    known = run_hashes(["one two three four five six seven eight nine", "a b"])
    assert len(known) == 2 and list(known) == sorted(known)
    assert overlap("one two three four five six seven", known) is None
    assert overlap("One, two, three, four, five, six, seven, eight!", known) == 1.0
    assert overlap("zero one two three four five six seven eight nine", known) == pytest.approx(2 / 3)
    assert overlap("nine eight seven six five four three two", known) == 0.0
    assert overlap("one two three four five six seven eight", run_hashes([])) == 0.0


def test_run_hashes_are_distinct_and_the_same_everywhere() -> None:
    assert len(run_hashes(["a b c d e f g h"] * 3)) == 1
    assert list(run_hashes(["a b"], n=2)) == [2952434739088078779]


def test_mean_of_the_rows_that_have_a_value() -> None:
    found = mean_interval([1.0, None, 3.0, 2.0], Resampling(500, 0))
    assert found is not None and found.value == 2.0 and found.n == 3
    assert 1.0 <= found.low < 2.0 < found.high <= 3.0
    assert mean_interval([None, None], Resampling(500, 0)) is None and mean_interval([], Resampling(500, 0)) is None
    assert mean_interval([1.0, None, 3.0, 2.0], Resampling(500, 0)) == found  # seeded


def test_a_constant_that_is_no_share_has_no_spread() -> None:
    assert mean_interval([2.5] * 4, Resampling(100, 0)) == Interval(2.5, 2.5, 2.5, 4)


@pytest.mark.parametrize("rows", [1, 5, 20, 200])
def test_constant_shares_have_wilsons_interval(rows: int) -> None:
    """With p = 1 Wilson's bounds are n / (n + z^2) and 1; with p = 0 they are 0 and z^2 / (n + z^2)."""
    square = 1.959964**2
    ones, zeros = mean_interval([1.0] * rows, Resampling(100, 0)), mean_interval([0.0] * rows, Resampling(100, 0))
    assert ones is not None and zeros is not None
    assert (ones.low, ones.value, ones.high) == pytest.approx((rows / (rows + square), 1.0, 1.0))
    assert (zeros.low, zeros.value, zeros.high) == pytest.approx((0.0, 0.0, square / (rows + square)))


def test_the_bootstrap_is_that_of_the_rows() -> None:
    """Of (0, 1) a resample has the mean 0, 1/2 or 1 with probability 1/4, 1/2, 1/4: the quantiles are 0 and 1."""
    assert mean_interval([0.0, 1.0], Resampling(2000, 0)) == Interval(0.5, 0.0, 1.0, 2)


def test_a_ratio_weighs_rows_by_tokens() -> None:
    found = ratio_interval([(10.0, 5), (2.0, 4), (6.0, 3)], Resampling(1000, 0))
    assert found.value == pytest.approx(18 / 12) and found.n == 3
    assert 0.5 <= found.low <= 1.5 <= found.high <= 2.0
    assert ratio_interval([(10.0, 5), (4.0, 2)], Resampling(100, 0)) == Interval(2.0, 2.0, 2.0, 2)


def test_differences_are_paired() -> None:
    base, tuned = [1.0, 5.0, 9.0, None, 4.0], [2.0, 6.0, 10.0, 7.0, None]
    assert difference_interval(base, tuned, Resampling(300, 0)) == Interval(1.0, 1.0, 1.0, 3)
    assert difference_interval([None], [1.0], Resampling(300, 0)) is None
    pairs, better = [(10.0, 5), (3.0, 4), (8.0, 2)], [(5.0, 5), (-1.0, 4), (6.0, 2)]  # one nat a token less
    gap = ratio_difference(pairs, better, Resampling(300, 0))
    assert (gap.value, gap.low, gap.high) == pytest.approx((-1.0, -1.0, -1.0)) and gap.n == 3
    with pytest.raises(ValueError, match="zip"):
        difference_interval([1.0], [1.0, 2.0], Resampling(300, 0))


def test_perplexity_is_exp_of_the_loss() -> None:
    found = perplexity(Interval(math.log(3), 0.0, math.log(5), 7))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((3.0, 1.0, 5.0, 7))
    assert math.isfinite(perplexity(Interval(1e6, 0.0, 1e9, 1)).high)


@pytest.mark.parametrize("kind", ["mean", "ratio", "difference"])
def test_intervals_cover_the_truth_as_often_as_they_say(kind: str) -> None:
    """400 samples of 60 rows: about 95 % of the intervals hold the true value; three standard errors are 3.3 %."""
    random = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        tokens = random.integers(20, 60, 60)
        losses = tokens * random.normal(2.0, 0.5, 60)
        if kind == "mean":
            found, truth = mean_interval(list(random.exponential(1.0, 60)), Resampling(300, 1)), 1.0
        elif kind == "ratio":
            found, truth = (
                ratio_interval([(float(x), int(n)) for x, n in zip(losses, tokens, strict=True)], Resampling(300, 1)),
                2.0,
            )
        else:
            base = random.normal(0.5, 1.0, 60)
            found = difference_interval(list(base), list(base + random.normal(0.3, 0.2, 60)), Resampling(300, 1))
            truth = 0.3
        assert found is not None
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 400 <= 0.985


def test_rows_of_a_group_are_drawn_together() -> None:
    """Ten athletes with the same row four times over: no more is known than of ten rows."""
    values = [float(number % 3) for number in range(10)]
    copies, names = values * 4, [f"athlete {number}" for number in range(10)] * 4
    once = mean_interval(values, Resampling(4000, 1))
    assert once is not None
    together, apart = mean_interval(copies, Resampling(4000, 1, names)), mean_interval(copies, Resampling(4000, 1))
    assert together is not None and apart is not None
    assert (together.low, together.high) == pytest.approx((once.low, once.high)) and together.n == 40
    assert apart.high - apart.low < 0.6 * (together.high - together.low)
    paired = difference_interval([0.0] * 40, copies, Resampling(4000, 1, names))
    assert paired is not None and (paired.low, paired.high) == pytest.approx((once.low, once.high))
    sure, alone = mean_interval([1.0] * 40, Resampling(500, 1, names)), mean_interval([1.0] * 10, Resampling(500, 1))
    assert sure is not None and alone is not None and sure.low == pytest.approx(alone.low)
    pairs = [(value, 1) for value in copies]
    assert ratio_interval(pairs, Resampling(4000, 1, names)).high == pytest.approx(once.high)
    assert ratio_difference([(0.0, 1)] * 40, pairs, Resampling(4000, 1, names)).low == pytest.approx(once.low)


def test_groups_of_one_row_change_nothing() -> None:
    values = [0.0, 1.0, None, 1.0, 0.0, 1.0]
    assert mean_interval(values, Resampling(300, 1, list("abcdef"))) == mean_interval(values, Resampling(300, 1))
