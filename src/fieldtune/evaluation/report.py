"""The evaluation report: one HTML page made from the files of an evaluation folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fieldtune.charts import Interval, Series, finite, interval_bar, line_chart, nice_ticks
from fieldtune.evaluation.label_report import label_section
from fieldtune.evaluation.pictures import TIMEOUT, pictures
from fieldtune.evaluation.report_input import Breakdown, MetricResult, Prediction, Results, number, read_results
from fieldtune.pages import count_text, duration, figure, render, write_page
from fieldtune.sources.decoder import Decoder

SHOWN = 3  # samples at each end of the ranking
UNIT_WORDS = {"share": "", "nats": "nats per token", "perplexity": "", "ratio": "", "tokens": "tokens"}


def write_report(folder: Path) -> Path:
    """Write folder/report.html from folder/metrics.json and folder/predictions.jsonl; returns its path.

    `UserError` when a file is missing or broken.
    """
    results = read_results(folder)
    best, worst = ranked(results)
    html = render(
        "report.html.j2",
        results=results,
        has_base="base" in results.systems,
        verdict=verdict(results),
        created=_date(results.created),
        figures=_key_figures(results),
        metrics=_metric_rows(results.metrics, "metric"),
        constrained=_metric_rows([metric for metric in results.constrained if metric.tuned], "constrained"),
        beside_rule=_metric_rows(_against_baseline(results), "rule"),
        labels=label_section(results.labels, str(folder / "metrics.json")),
        packing=packing_lines(results.packing),
        chart=_loss_charts(results),
        breakdowns=[_heat_table(item, results) for item in results.breakdowns if item.groups],
        samples=_sample_sections(best, worst, results),
        notes=_notes(results),
        provenance=_provenance(results),
    )
    return write_page(folder / "report.html", html)


def outcome(metric: MetricResult) -> str:
    """better | worse | even | "": where the difference's interval lies; "" without one, or without a better side."""
    difference = metric.difference
    if difference is None or difference.low is None or difference.high is None or metric.better == "neither":
        return ""
    if difference.low <= 0 <= difference.high:
        return "even"
    return "better" if (difference.low > 0) == (metric.better == "higher") else "worse"


def verdict(results: Results) -> str:
    """One or two sentences: on how many metrics the tuned model beats the base beyond chance."""
    outcomes = [outcome(metric) for metric in results.metrics]
    compared = [item for item in outcomes if item]
    if "base" not in results.systems:
        return "Only the tuned model was evaluated, so there is no comparison with the base model."
    if not compared:
        return "No metric has an interval for its difference, so the tuned model cannot be told from the base model."
    better, worse, total = compared.count("better"), compared.count("worse"), len(compared)
    metrics = "metric" if total == 1 else "metrics"
    if not better and not worse:
        return f"The tuned model differs from the base on none of {total} {metrics} beyond chance (95% interval)."
    if not better:
        return f"The tuned model is worse than the base on {worse} of {total} {metrics} beyond chance (95% interval)."
    first = f"The tuned model beats the base on {better} of {total} {metrics} beyond chance (95% interval)"
    return f"{first} and is worse on {worse}." if worse else f"{first}."


@dataclass(frozen=True, slots=True)
class Sample:
    """A prediction with the mean of its share scores (0 to 1), by which it is ranked."""

    row: Prediction
    mean: float


def ranked(results: Results) -> tuple[list[Sample], list[Sample]]:
    """The best and the worst rows of the tuned model, at most `SHOWN` each, no row in both.

    Ranked by the mean of the share scores for which higher is better; among equals the lower loss is better.
    """
    names = [metric.name for metric in results.metrics if metric.unit == "share" and metric.better == "higher"]
    samples = []
    for row in results.predictions:
        scores = row.scores.get("tuned", {})
        values = [value for name in names if (value := scores.get(name)) is not None]
        if values:
            samples.append(Sample(row, sum(values) / len(values)))
    samples.sort(key=lambda sample: (-sample.mean, sample.row.scores["tuned"].get("loss") or 0.0, sample.row.id))
    best = samples[: min(SHOWN, math.ceil(len(samples) / 2))]
    worst = samples[len(best) :][-SHOWN:]
    return best, worst[::-1]


def _date(created: str) -> str:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = " UTC" if moment.utcoffset() == timedelta(0) else ""
    return f"{moment:%B} {moment.day}, {moment:%Y, %H:%M}{zone}"


def _key_figures(results: Results) -> list[dict[str, str]]:
    """Large numbers with a label and a note; only those that the files give."""
    found: list[dict[str, str]] = []

    def add(value: str, label: str, note: str = "") -> None:
        found.append({"value": value, "label": label, "note": note})

    shares = [m for m in results.metrics if m.unit == "share" and m.better == "higher"]
    tuned = [m.tuned.value for m in shares if m.tuned]
    base = [m.base.value for m in shares if m.tuned and m.base]
    if tuned:
        compare = f"base {figure(sum(base) / len(base), 'share')}" if len(base) == len(tuned) else ""
        add(figure(sum(tuned) / len(tuned), "share"), "mean of the share metrics", compare)
    losses = finite(results.curves.get("val/loss", ()))
    if losses:
        start = f"from {figure(losses[0][1], 'nats')} at step {losses[0][0]:,.0f}" if len(losses) > 1 else ""
        add(figure(losses[-1][1], "nats"), "validation loss", start)
    evaluated = number(results.data.get("evaluated"))
    split = str(results.data.get("split", ""))
    if evaluated is not None:
        rows = results.data.get("rows")
        of = number(rows.get(split)) if isinstance(rows, dict) else None
        add(f"{evaluated:,.0f}", f"{split} rows evaluated".strip(), f"of {of:,.0f}" if of is not None else "")
    trained, total = (number(results.model.get(key)) for key in ("trainable_parameters", "parameters"))
    if trained is not None and total:
        add(count_text(trained), "trained parameters", f"{trained / total:.1%} of {count_text(total)}")
    if seconds := results.times.get("train_seconds"):
        add(duration(seconds), "training time")
    return found


def _against_baseline(results: Results) -> list[MetricResult]:
    """The metrics that the rule has too, with the rule in the base's place."""
    return [
        replace(metric, base=metric.baseline, difference=metric.over_baseline)
        for metric in results.metrics
        if metric.baseline
    ]


def _metric_rows(metrics: Sequence[MetricResult], ident: str) -> list[dict[str, Any]]:
    return [_metric_row(metric, f"{ident}-{index}") for index, metric in enumerate(metrics)]


def _metric_row(metric: MetricResult, ident: str) -> dict[str, Any]:
    pairs = [(kind, item) for kind, item in (("base", metric.base), ("tuned", metric.tuned)) if item]
    ends = [end for _, item in pairs for end in (item.low, item.high, item.value) if end is not None]
    axis = (0.0, 1.0)
    if metric.unit != "share" and ends:
        ticks = nice_ticks(min(0.0, *ends), max(ends), 3)
        axis = (ticks[0], ticks[-1])
    said = "; ".join(
        f"{kind} {figure(item.value, metric.unit)}"
        + (f", {figure(item.low, metric.unit)} to {figure(item.high, metric.unit)}" if item.low is not None else "")
        for kind, item in pairs
    )
    bar = interval_bar(
        [Interval(kind, item.value, item.low, item.high) for kind, item in pairs],
        axis=axis,
        title=f"{metric.title}, 95% intervals",
        description=said or "not measured",
        ident=ident,
    )
    return {
        "metric": metric,
        "unit": UNIT_WORDS[metric.unit],
        "outcome": outcome(metric),
        "bar": bar if pairs else "",
        "axis": tuple(_axis_end(end, metric.unit) for end in axis),
    }


def _axis_end(value: float, unit: str) -> str:
    return f"{value * 100:.0f}%" if unit == "share" else f"{value:,g}"


def _loss_charts(results: Results) -> dict[str, Any]:
    """The wide and the narrow drawing of the loss curves, and a note on values that are not finite."""
    series, lost = [], []
    for name, points in sorted(results.curves.items(), key=lambda item: not item[0].startswith("train")):
        if not name.endswith("loss"):
            continue
        kind = "train" if name.startswith("train") else "val"
        series.append(Series(name.partition("/")[0], kind, points))
        if missing := len(points) - len(finite(points)):
            lost.append(f"{name}: {missing} of {len(points)} values are not finite and left out.")

    def draw(ident: str, width: int, height: int) -> str:
        return line_chart(
            series, title="Loss over training", ident=ident, x_label="optimizer step", width=width, height=height
        )

    return {"wide": draw("loss-wide", 860, 340), "narrow": draw("loss-narrow", 360, 280), "lost": lost}


def _heat_table(breakdown: Breakdown, results: Results) -> dict[str, Any]:
    """A breakdown as a table: per metric a cell with text and a tint from 0 (worst) to 1 (best of the scale)."""
    present = {name for group in breakdown.groups for name in group.values}
    metrics = [metric for metric in results.metrics if metric.name in present]
    columns = [_tints([group.values.get(metric.name, {}) for group in breakdown.groups], metric) for metric in metrics]
    rows = []
    for index, group in enumerate(breakdown.groups):
        cells = [
            {
                "tuned": group.values.get(metric.name, {}).get("tuned"),
                "base": group.values.get(metric.name, {}).get("base"),
                "unit": metric.unit,
                "tint": columns[number][index],
            }
            for number, metric in enumerate(metrics)
        ]
        rows.append({"group": group.group, "n": group.n, "cells": cells})
    return {"title": breakdown.title, "metrics": metrics, "rows": rows}


def _tints(values: Sequence[Mapping[str, float | None]], metric: MetricResult) -> list[float]:
    """0 (worst) to 1 (best) for the tuned value of each group, on a scale that starts at zero.

    It ends at 100% for shares, else at the column's greatest value of either system, so that small differences
    between groups do not look large.
    """
    known = [value for pair in values for value in pair.values() if value is not None]
    top = 1.0 if metric.unit == "share" else max(known, default=0.0)
    tints = []
    for pair in values:
        value = pair.get("tuned")
        share = min(max(value / top, 0.0), 1.0) if value is not None and top > 0 else None
        tints.append(0.0 if share is None else 1 - share if metric.better == "lower" else share)
    return tints


def _sample_sections(best: Sequence[Sample], worst: Sequence[Sample], results: Results) -> list[dict[str, Any]]:
    titles = {metric.name: metric for metric in results.metrics}

    def view(sample: Sample, decoder: Decoder | None) -> dict[str, Any]:
        row = sample.row
        answers = [
            {
                "system": system,
                "text": row.answers.get(system),
                "scores": [
                    (titles[name].title, figure(value, titles[name].unit))
                    for name, value in row.scores.get(system, {}).items()
                    if name in titles and value is not None
                ],
                "checks": row.checks.get(system),
            }
            for system in results.systems
        ]
        meta = [(key, str(value)) for key, value in row.meta.items() if isinstance(value, (str, int, float))]
        shown = pictures(row.media, decoder) if decoder else []
        return {"row": row, "mean": sample.mean, "meta": meta, "answers": answers, "pictures": shown}

    sections = (("Best answers", best), ("Worst answers", worst))
    seeing = any(sample.row.media for _, part in sections for sample in part)
    with Decoder(TIMEOUT) if seeing else nullcontext() as decoder:
        return [{"title": title, "samples": [view(one, decoder) for one in part]} for title, part in sections if part]


def _notes(results: Results) -> list[str]:
    straddling = number(results.data.get("near_duplicates_straddling"))
    if not straddling:
        return list(results.notes)
    warning = (
        f"{straddling:,.0f} groups of near-duplicate rows lie in more than one split: "
        "the figures may flatter the tuned model."
    )
    return [warning, *results.notes]


def packing_lines(packing: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What packing did in the training, as (what, figure); empty without a record of it."""
    plain, computed, fewest = (number(packing.get(key)) for key in ("tokens", "computed", "fewest"))
    if not plain or computed is None or fewest is None:
        return []
    found = [
        ("Rows", f"{plain:,.0f} tokens"),
        ("Computed", f"{computed:,.0f} tokens, {computed / plain:.1%} of the rows'"),
        ("Each distinct beginning once", f"{fewest:,.0f} tokens, {fewest / plain:.1%}: the fewest there can be"),
    ]
    padded = number(packing.get("padded"))
    if padded:
        found.append(("Rows padded to the longest", f"{padded:,.0f} tokens, {padded / plain:.1%}"))
    timed, unpacked, steps = (number(packing.get(key)) for key in ("seconds", "padded_seconds", "timed_steps"))
    if timed and unpacked and steps:
        said = f"{unpacked / timed:.2f} times the speed of padded rows"
        how = f"{steps:.0f} optimizer steps, both ways in turn: {duration(timed)} against {duration(unpacked)}"
        found.append(("Speed", f"{said} ({how})"))
    return found


def _provenance(results: Results) -> list[tuple[str, str]]:
    model, data = results.model, results.data
    rows = data.get("rows")
    counts = ", ".join(f"{split} {n:,}" for split, n in rows.items() if number(n) is not None) if rows else ""
    seconds = results.times.get("evaluate_seconds")
    facts: list[tuple[str, Any]] = [
        ("Run", results.run),
        ("Created", results.created),
        ("Model", model.get("name")),
        ("Weights", model.get("weights")),
        ("Adapter", model.get("adapter")),
        ("Task", data.get("task")),
        ("Rows", counts),
        ("Data fingerprint", data.get("fingerprint")),
        ("Near-duplicate groups across splits", data.get("near_duplicates_straddling")),
        ("Evaluation time", duration(seconds) if seconds else None),
        *_versions(results.versions),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _versions(versions: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()))] if versions else []
