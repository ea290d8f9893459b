"""The load model on cases worked out by hand, and against independent formulas."""

from __future__ import annotations

import random

import pytest

from fieldtune.tasks.fitness.athletes import rounded_form, simulate
from fieldtune.tasks.fitness.load import (
    Load,
    duration_tss,
    heart_rate_tss,
    load_history,
    normalized_power,
    power_tss,
)


def test_a_first_day() -> None:
    (after,) = load_history([84.0])
    assert (after.ctl, after.atl, after.tsb) == (2.0, 12.0, -10.0)  # 84 / 42 and 84 / 7


def test_two_days_from_a_load() -> None:
    first, second = load_history([42.0, 0.0], Load(42.0, 49.0))
    assert (first.ctl, first.atl) == (42.0, 48.0)  # 49 + (42 - 49) / 7
    assert second.ctl == pytest.approx(41.0) and second.atl == pytest.approx(48 * 6 / 7)


def test_a_year_at_one_load_ends_at_it() -> None:
    last = load_history([60.0] * 365)[-1]
    assert last.ctl == pytest.approx(60.0, abs=0.02) and last.atl == pytest.approx(60.0) and abs(last.tsb) < 0.02


def test_histories_agree_with_the_closed_form() -> None:
    """CTL_n = q^n CTL_0 + sum of TSS_i (1 - q) q^(n-1-i), with q = 41/42; ATL with 6/7."""
    for seed in range(5):
        history = simulate(random.Random(seed))
        for day in (40, 100, len(history.daily_tss) - 1):
            told = history.context(history.first.fromordinal(history.first.toordinal() + day), ()).current_metrics
            ctl, atl = (closed(history.daily_tss[:day], q, history.start.ctl) for q in (41 / 42, 6 / 7))
            assert told.fitness_ctl == pytest.approx(ctl, abs=0.051)
            assert told.fatigue_atl == pytest.approx(atl, abs=0.051)
            assert told.form_tsb == pytest.approx(ctl - atl, abs=0.11)


def closed(daily: list[float], q: float, start: float) -> float:
    days = len(daily)
    return q**days * start + sum(tss * (1 - q) * q ** (days - 1 - number) for number, tss in enumerate(daily))


def test_the_three_figures_agree_as_they_are_shown() -> None:
    rng = random.Random(2)
    for _ in range(1000):
        ctl, atl, tsb = rounded_form(Load(rng.uniform(0, 120), rng.uniform(0, 180)))
        assert f"{ctl - atl:.1f}" == f"{tsb:.1f}"


def test_power() -> None:
    assert normalized_power([200.0] * 600) == pytest.approx(200.0)
    assert power_tss([250.0] * 3600, 250) == pytest.approx(100.0)  # an hour at threshold
    assert power_tss([200.0] * 1800, 250) == pytest.approx(32.0)  # 0.8 squared, half an hour
    assert normalized_power([]) == 0.0 and normalized_power([100.0, 300.0]) == 200.0


def test_zeros_are_kept() -> None:
    """A minute at 300 W and a minute of coasting, again and again; the rolling mean moves between 0 and 300 W."""
    ride = ([300.0] * 60 + [0.0] * 60) * 20
    with_zeros = normalized_power(ride)
    assert with_zeros < 260 < normalized_power([watts for watts in ride if watts])
    ramp = [sum(ride[end - 30 : end]) / 30 for end in range(30, len(ride) + 1)]
    assert with_zeros == pytest.approx((sum(mean**4 for mean in ramp) / len(ramp)) ** 0.25)


def test_heart_rate_by_zones() -> None:
    assert heart_rate_tss([160.0] * 3600, 160) == pytest.approx(100.0)  # 100 % of the threshold: zone 5a
    assert heart_rate_tss([120.0] * 1800 + [140.0] * 1800, 160) == pytest.approx(30 / 2 + 55 / 2)
    assert heart_rate_tss([180.0] * 360, 160) == pytest.approx(14.0)


def test_duration_alone() -> None:
    assert duration_tss(90) == 75.0
