"""Charts as SVG text for our own pages, and the loss plot as PDF. Pure functions; colors come from the page's CSS.

The SVGs carry classes instead of colors (`s-tuned`, `s-base`, `s-train`, `s-val`), so one drawing serves light,
dark and print. Every one has a title and a description for readers who do not see it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

MAX_POINTS = 400  # more than a chart has pixels for; longer curves are averaged down to this
DOTS_UP_TO = 40  # a curve of at most so many points shows each of them


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. kind is its CSS class without `s-`; points are (x, y), NaN and infinite y allowed."""

    label: str
    kind: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, in the unit of the axis; low and high may be None when none was computed."""

    kind: str
    value: float
    low: float | None = None
    high: float | None = None


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at or below `low` to at or above `high` (steps of 1, 2, 2.5 or 5)."""
    span = high - low or abs(high) or 1.0
    raw = span / max(count - 1, 1)
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next((m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= raw * 0.999), 10 * scale)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points whose both numbers are finite."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def line_chart(
    series: Sequence[Series], *, title: str, ident: str, x_label: str, width: int = 720, height: int = 320
) -> str:
    """Curves over a shared x axis, each labeled at its end; "" when no series has a finite point.

    A curve is broken where it is not finite. `ident` must be unique in the page (it names title and description).
    """
    drawn = [(item, finite(item.points)) for item in series]
    drawn = [(item, points) for item, points in drawn if points]
    if not drawn:
        return ""
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    y_ticks = nice_ticks(min(0.0, *ys) if min(ys) < max(ys) else min(ys) - 0.5, max(ys))
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:  # a single step: give it room on both sides
        x_low, x_high = x_low - 1, x_high + 1
    left, right, top, bottom = 44, 64, 12, 40
    plot = _Plot(x_low, x_high, y_ticks[0], y_ticks[-1], left, width - right, top, height - bottom)
    body = [*_grid(plot, y_ticks), *_x_axis(plot, x_label)]
    for item, _ in drawn:
        body.append(_curve(plot, item))
    body.extend(_end_labels(plot, drawn))
    described = "; ".join(_describe(item, points) for item, points in drawn)
    return _svg(ident, title, described, width, height, "".join(body), "chart")


def interval_bar(
    intervals: Sequence[Interval], *, axis: tuple[float, float], title: str, description: str, ident: str
) -> str:
    """A dot for each value with its interval as a bar, one under the other, on an axis from low to high."""
    width, row = 240, 16
    low, high = axis
    height = row * max(len(intervals), 1) + 6
    plot = _Plot(low, high if high > low else low + 1, 0, 1, 7, width - 7, 0, height)
    body = []
    for number, item in enumerate(intervals):
        y = 3 + row * number + row / 2
        body.append(f'<line class="track" x1="{plot.left}" x2="{plot.right}" y1="{y}" y2="{y}"/>')
        if item.low is not None and item.high is not None:
            x1, x2 = plot.x(item.low), plot.x(item.high)
            body.append(f'<line class="range s-{item.kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y}" y2="{y}"/>')
        body.append(f'<circle class="dot s-{item.kind}" cx="{plot.x(item.value):.1f}" cy="{y}" r="4.5"/>')
    return _svg(ident, title, description, width, height, "".join(body), "interval")


@dataclass(frozen=True, slots=True)
class _Plot:
    """Maps data to pixels; values outside the axis are drawn at its end."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float
    right: float
    top: float
    bottom: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return self.left + min(max(share, 0.0), 1.0) * (self.right - self.left)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return self.bottom - min(max(share, 0.0), 1.0) * (self.bottom - self.top)


def _svg(ident: str, title: str, description: str, width: int, height: int, body: str, name: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{escape(ident)}-t {escape(ident)}-d">'
        f'<title id="{escape(ident)}-t">{escape(title)}</title>'
        f'<desc id="{escape(ident)}-d">{escape(description)}</desc>{body}</svg>'
    )


def _grid(plot: _Plot, ticks: Sequence[float]) -> list[str]:
    parts = []
    for number, tick in enumerate(ticks):
        y = plot.y(tick)
        name = "axis" if number == 0 else "grid"
        parts.append(f'<line class="{name}" x1="{plot.left}" x2="{plot.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{plot.left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return parts


def _x_axis(plot: _Plot, label: str) -> list[str]:
    inside = [t for t in nice_ticks(plot.x_low, plot.x_high, 6) if plot.x_low <= t <= plot.x_high]
    parts = []
    for tick in inside:
        if tick == int(tick):  # steps are whole numbers
            x = plot.x(tick)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{plot.bottom + 18:.1f}" text-anchor="middle">{int(tick):,}</text>'
            )
    middle = (plot.left + plot.right) / 2
    name = f'<text class="tick" x="{middle:.1f}" y="{plot.bottom + 36:.1f}" text-anchor="middle">{escape(label)}</text>'
    return [*parts, name]


def _curve(plot: _Plot, item: Series) -> str:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in thin(item.points):
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    parts = []
    few = len(item.points) <= DOTS_UP_TO
    for run in runs:
        if len(run) > 1:
            path = "L".join(f"{plot.x(x):.1f} {plot.y(y):.1f}" for x, y in run)
            parts.append(f'<path class="curve s-{item.kind}" d="M{path}"/>')
        for x, y in run if few or len(run) == 1 else ():
            parts.append(f'<circle class="point s-{item.kind}" cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="2.6"/>')
    return "".join(parts)


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MAX_POINTS` points: means of neighbors. A group with a value that is not finite stays not finite."""
    size = math.ceil(len(points) / MAX_POINTS) or 1
    if size == 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _end_labels(plot: _Plot, drawn: Sequence[tuple[Series, list[tuple[float, float]]]]) -> list[str]:
    """Names at the ends of the curves, moved apart where they would cover one another."""
    places = sorted((plot.y(points[-1][1]), number) for number, (_, points) in enumerate(drawn))
    parts, floor = [], plot.top
    for index, (wanted, number) in enumerate(places):
        ceiling = plot.bottom - 16 * (len(places) - 1 - index)  # leaves room for the labels below
        y = min(max(wanted, floor), ceiling)
        floor = y + 16
        item, points = drawn[number]
        x = plot.x(points[-1][0]) + 9
        parts.append(f'<text class="label s-{item.kind}" x="{x:.1f}" y="{y + 4:.1f}">{escape(item.label)}</text>')
    return parts


def _describe(item: Series, points: Sequence[tuple[float, float]]) -> str:
    (first_x, first_y), (last_x, last_y) = points[0], points[-1]
    if len(points) == 1:
        return f"{item.label}: {first_y:.3g} at {first_x:g}"
    return f"{item.label}: {first_y:.3g} at {first_x:g}, {last_y:.3g} at {last_x:g}"


def loss_plot_pdf(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path, title: str) -> None:
    """Write the loss curves (nats per token over optimizer steps) as a one-page PDF, A5 landscape.

    Curves whose name starts with "train" are thin and gray, all others bold. The same curves give the same bytes.
    """
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.27, 5.83), layout="constrained")
    FigureCanvasPdf(figure)
    axes = figure.add_subplot()
    for name, points in curves.items():
        faint = name.startswith("train")
        line: dict[str, Any] = (
            {"color": "#8a929b", "linewidth": 1.0} if faint else {"color": "#0f6b63", "linewidth": 2.2}
        )
        thinned = thin(points)
        marker = "o" if len(finite(points)) <= DOTS_UP_TO else ""
        xs, ys = [x for x, _ in thinned], [y if math.isfinite(y) else math.nan for _, y in thinned]
        axes.plot(xs, ys, label=name, marker=marker, markersize=3, **line)
    # Escaped, or matplotlib would take a name with dollar signs for a formula.
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=13)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    if curves:
        axes.legend(frameon=False)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
    try:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None, "Title": title})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
