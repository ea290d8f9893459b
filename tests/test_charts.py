from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest

from fieldtune.charts import MAX_POINTS, Interval, Series, interval_bar, line_chart, loss_plot_pdf, nice_ticks, thin


def chart(*series: Series) -> str:
    return line_chart(series, title="Loss", ident="loss", x_label="step")


@pytest.mark.parametrize(("low", "high"), [(0, 4.2), (0, 1), (-3, 12), (0.31, 0.32), (0, 1e6), (5, 5), (0, 0)])
def test_ticks_cover_the_range_in_round_steps(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 2 <= len(ticks) <= 7
    steps = {round(b - a, 9) for a, b in pairwise(ticks)}
    assert len(steps) == 1


def test_a_curve_breaks_at_values_that_are_not_finite() -> None:
    points = [(0, 4.0), (1, 3.0), (2, math.nan), (3, 2.0), (4, 1.5), (5, math.inf), (6, 1.0)]
    svg = chart(Series("train", "train", points))
    assert len(re.findall(r'<path class="curve', svg)) == 2
    assert svg.count("<circle") == 5
    assert "nan" not in svg and "inf" not in svg


def test_one_point_is_a_dot_and_none_is_no_chart() -> None:
    svg = chart(Series("val", "val", [(10, 2.0)]))
    assert "<circle" in svg and "<path" not in svg
    assert "val: 2 at 10" in svg
    assert chart(Series("val", "val", [(1, math.nan)])) == ""
    assert chart() == ""


def test_names_are_escaped_and_end_labels_keep_apart() -> None:
    same = [(0, 2.0), (9, 1.0)]
    svg = chart(Series("<a>", "val", same), Series("b", "train", same))
    assert "<a>" not in svg and "&lt;a&gt;" in svg
    heights = [float(y) for y in re.findall(r'class="label[^>]* y="([\d.]+)"', svg)]
    assert abs(heights[0] - heights[1]) >= 15


def test_long_curves_are_averaged() -> None:
    points = [(float(x), float(x % 2)) for x in range(10_000)]
    few = thin(points)
    assert len(few) <= MAX_POINTS
    assert all(abs(y - 0.5) < 0.05 for _, y in few)
    assert thin(points[:MAX_POINTS]) == points[:MAX_POINTS]


def test_interval_bar_draws_what_is_known_inside_the_axis() -> None:
    bar = interval_bar(
        [Interval("base", 0.2), Interval("tuned", 0.9, 0.8, 1.4)],
        axis=(0.0, 1.0), title="t", description="d", ident="i",
    )  # fmt: skip
    assert bar.count('class="range') == 1 and bar.count("<circle") == 2
    assert all(0 <= float(x) <= 240 for x in re.findall(r'(?:x1|x2|cx)="([\d.]+)"', bar))
    assert '<title id="i-t">t</title><desc id="i-d">d</desc>' in bar


def test_loss_plot_is_a_pdf_and_the_same_each_time(tmp_path: Path) -> None:
    curves = {"train/loss": [(1.0, 4.0), (2.0, math.nan), (3.0, 2.0)], "val/loss": [(3.0, 2.1)]}
    for name in ("a.pdf", "b.pdf"):
        loss_plot_pdf(curves, tmp_path / name, "costs $5 {and_more}")
    loss_plot_pdf({}, tmp_path / "empty.pdf", "nothing")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3
