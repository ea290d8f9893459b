"""Base and tuned side by side: a score a row, a mean with its interval a metric, a table a breakdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune.evaluation.metrics import (
    Interval,
    difference_interval,
    mean_interval,
    overlap,
    perplexity,
    ratio_difference,
    ratio_interval,
    repetition,
)
from fieldtune.evaluation.predict import Predictions
from fieldtune.records import Example
from fieldtune.tasks.base import Metric, Score, Task

LOSS = Metric("loss", "Held-out loss", "nats", "lower", "Nats per supervised token of the reference answers.")
PERPLEXITY = Metric("perplexity", "Perplexity", "perplexity", "lower", "exp of the held-out loss.")
TEXT_METRICS = (
    Metric("ended", "Ends by itself", "share", "higher", "The answer stops at the end token, not at the token limit."),
    Metric(
        "repetition", "Repetition", "share", "lower", "Share of four-word runs that stood in the same answer before."
    ),
    Metric(
        "overlap",
        "Overlap with training texts",
        "share",
        "neither",
        "Share of eight-word runs that stand word for word in a training answer.",
    ),
)


def score_rows(
    task: Task, examples: Sequence[Example], predictions: Mapping[str, Predictions], known: NDArray[np.uint64]
) -> dict[str, list[Score]]:
    """For each system a `Score` a row: the task's own, the text measures, and the row's loss."""
    scored = {}
    for name, predicted in predictions.items():
        scores = []
        for example, answer, (loss, tokens) in zip(examples, predicted.answers, predicted.losses, strict=True):
            score = task.score(example, answer.text)
            values = {
                **score.values,
                "ended": float(answer.ended),
                "repetition": repetition(answer.text),
                "overlap": overlap(answer.text, known),
                "loss": loss / tokens,
            }
            scores.append(Score(values, score.checks))
        scored[name] = scores
    return scored


def compare(
    task: Task,
    predictions: Mapping[str, Predictions],
    scored: Mapping[str, Sequence[Score]],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Each metric with base, tuned and their difference as intervals (see `report`)."""
    losses = {name: predicted.losses for name, predicted in predictions.items()}
    nats = {name: ratio_interval(pairs, resamples, seed) for name, pairs in losses.items()}
    gap = ratio_difference(losses["base"], losses["tuned"], resamples, seed) if "base" in losses else None
    rows = [
        _row(LOSS, nats, gap),
        _row(PERPLEXITY, {name: perplexity(interval) for name, interval in nats.items()}, None),
    ]
    for metric in (*task.metrics, *TEXT_METRICS):
        values = {name: [score.values.get(metric.name) for score in scores] for name, scores in scored.items()}
        means = {name: mean_interval(column, resamples, seed) for name, column in values.items()}
        paired = difference_interval(values["base"], values["tuned"], resamples, seed) if "base" in values else None
        rows.append(_row(metric, means, paired))
    return rows


def _row(metric: Metric, intervals: Mapping[str, Interval | None], difference: Interval | None) -> dict[str, Any]:
    def as_json(interval: Interval | None) -> dict[str, float] | None:
        return interval.to_json() if interval else None

    return {
        "name": metric.name,
        "title": metric.title,
        "unit": metric.unit,
        "better": metric.better,
        "about": metric.about,
        "base": as_json(intervals.get("base")),
        "tuned": as_json(intervals.get("tuned")),
        "difference": as_json(difference),
    }


def breakdowns(task: Task, examples: Sequence[Example], scored: Mapping[str, Sequence[Score]]) -> list[dict[str, Any]]:
    """Means by each of the task's breakdowns: groups of rows with the same value of a meta key."""
    tables = []
    for key in task.breakdowns:
        members: dict[str, list[int]] = defaultdict(list)
        for number, example in enumerate(examples):
            members[str(example.meta.get(key, getattr(example, key, "")))].append(number)
        groups = [
            {
                "group": group,
                "n": len(numbers),
                "values": {
                    metric.name: {
                        name: _mean([scores[number].values.get(metric.name) for number in numbers])
                        for name, scores in scored.items()
                    }
                    for metric in task.metrics
                },
            }
            for group, numbers in sorted(members.items())
        ]
        tables.append({"name": key, "title": f"By {key.replace('_', ' ')}", "groups": groups})
    return tables


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
