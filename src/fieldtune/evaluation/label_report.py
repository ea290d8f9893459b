"""The report's section on label questions: charts, tables and a confusion map from metrics.json's `labels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldtune.charts import Series, line_chart
from fieldtune.errors import UserError
from fieldtune.pages import figure, signed

MAP_LABELS = 24  # of the confusion map; with more, those that are confused most


def label_section(raw: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """What the template shows; None where no row asked for a label. `UserError` for what evaluate.py does not write."""
    if not raw:
        return None
    try:
        return {
            "rows": raw["rows"],
            "count": len(raw["names"]),
            "facts": _facts(raw),
            "why": raw["why"],
            "reliability": _drawn("reliability", _reliability(raw), "confidence, %", "Accuracy by confidence"),
            "coverage": _drawn("coverage", _coverage(raw), "rows answered, %", "Accuracy by rows answered"),
            "calibrated": raw["after"] is not None,
            "thresholds": [_threshold(row) for row in raw["coverage"]],
            "bins": [_bin(row) for row in (raw["after"] or raw["before"])["reliability"]],
            "classes": [_class(row) for row in raw["classes"] if row["n"] or row["chosen"]],
            "confused": [{**row, "share": figure(row["share"], "share")} for row in raw["confused"]],
            "map": _map(raw["names"], raw["confusion"]),
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{where}: 'labels' is not what evaluate.py writes ({error}); run evaluate.py again to write it anew"
        ) from None


def _facts(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    before, after = raw["before"], raw["after"]

    def both(name: str, unit: str) -> str:
        first = _estimate(before[name], unit)
        return f"{first}; calibrated {_estimate(after[name], unit)}" if after else first

    found = [
        ("Right", _estimate(raw["accuracy"], "share")),
        (f"Always the most common label, {raw['majority']['label']}", _estimate(raw["majority"], "share")),
        ("Above that", _difference(raw["over_majority"])),
        ("Mean F1 of the labels", figure(raw["macro_f1"], "share")),
        ("Mean confidence", figure(before["confidence"], "share")
         + (f"; calibrated {figure(after['confidence'], 'share')}" if after else "")),
        ("Calibration error, bins of equal width", both("ece", "share")),
        ("Calibration error, bins of equal size", both("ece_mass", "share")),
        ("Loss of the right label", both("loss", "nats") + " nats"),
        ("Brier score", both("brier", "ratio")),
        ("Answers that are a label at all", figure(raw["mass"], "share")),
    ]  # fmt: skip
    if after:
        found.append(("Temperature", f"{raw['temperature']:.3g}, fitted on {raw['fitted_on']:,} validation rows"))
    return found


def _estimate(interval: Mapping[str, float] | None, unit: str) -> str:
    if interval is None:
        return figure(None, unit)
    low, high = figure(interval["low"], unit).replace("%", ""), figure(interval["high"], unit)
    return f"{figure(interval['value'], unit)} ({low} to {high})"


def _difference(interval: Mapping[str, float]) -> str:
    low, high = (signed(interval[end], "share").replace(" pp", "") for end in ("low", "high"))
    return f"{signed(interval['value'], 'share')} ({low} to {high})"


def _reliability(raw: Mapping[str, Any]) -> list[Series]:
    def points(part: Mapping[str, Any]) -> list[tuple[float, float]]:
        return [(100 * row["confidence"], 100 * row["accuracy"]["value"]) for row in part["reliability"]]

    as_it_is = "base" if raw["after"] else "tuned"
    series = [Series("ideal", "train", [(0, 0), (100, 100)]), Series("as is", as_it_is, points(raw["before"]))]
    return [*series, Series("calibrated", "tuned", points(raw["after"]))] if raw["after"] else series


def _coverage(raw: Mapping[str, Any]) -> list[Series]:
    found = [(100 * row["covered"], 100 * row["accuracy"]["value"]) for row in raw["coverage"] if row["accuracy"]]
    return [Series("right", "tuned", sorted(set(found)))]


def _drawn(ident: str, series: Sequence[Series], x_label: str, title: str) -> dict[str, str]:
    """A chart for wide and for narrow pages."""
    return {
        name: line_chart(series, title=title, ident=f"{ident}-{name}", x_label=x_label, width=width, height=height)
        for name, width, height in (("wide", 860, 340), ("narrow", 360, 280))
    }


def _threshold(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "threshold": figure(row["threshold"], "share"),
        "covered": figure(row["covered"], "share"),
        "n": row["n"],
        "accuracy": _estimate(row["accuracy"], "share"),
    }


def _bin(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "n": row["n"],
        "confidence": figure(row["confidence"], "share"),
        "accuracy": _estimate(row["accuracy"], "share"),
    }


def _class(row: Mapping[str, Any]) -> dict[str, Any]:
    """tint: of a cell, from 0 to 1."""
    cells = [
        {"value": _value(row[name]), "text": _estimate(row[name], "share"), "tint": _value(row[name]) or 0.0}
        for name in ("precision", "recall")
    ]
    cells.append({"value": row["f1"], "text": figure(row["f1"], "share"), "tint": row["f1"] or 0.0})
    return {"label": row["label"], "n": row["n"], "chosen": row["chosen"], "cells": cells}


def _value(interval: Mapping[str, float] | None) -> float | None:
    return None if interval is None else interval["value"]


def _map(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The confusion matrix as rows of cells with a tint, a share of the row's label each. all: whether it is whole."""
    wrong = [sum(matrix[a]) - matrix[a][a] + sum(row[a] for row in matrix) - matrix[a][a] for a in range(len(names))]
    seen = [a for a in range(len(names)) if sum(matrix[a]) or any(row[a] for row in matrix)]
    shown = sorted(sorted(seen, key=lambda a: -wrong[a])[:MAP_LABELS])
    rows = [
        {
            "label": names[a],
            "cells": [{"n": matrix[a][b], "tint": matrix[a][b] / (sum(matrix[a]) or 1), "own": a == b} for b in shown],
        }
        for a in shown
    ]
    return {"names": [names[a] for a in shown], "rows": rows, "all": len(shown) == len(seen)}
