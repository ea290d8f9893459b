"""Base and tuned side by side: a score a row, a mean with its interval a metric, a table a breakdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune.evaluation.labels import LABEL_METRICS
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
)
from fieldtune.evaluation.predict import Predictions
from fieldtune.models.generate import Answer
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
    return {
        name: [
            _score(task, example, answer, loss / tokens, known)
            for example, answer, (loss, tokens) in zip(examples, predicted.answers, predicted.losses, strict=True)
        ]
        for name, predicted in predictions.items()
    }


def _score(task: Task, example: Example, answer: Answer | None, loss: float, known: NDArray[np.uint64]) -> Score:
    """Of a row without an answer only the loss."""
    if answer is None:
        return Score({"loss": loss})
    score = task.score(example, answer.text)
    of_text = {
        "ended": float(answer.ended),
        "repetition": repetition(answer.text),
        "overlap": overlap(answer.text, known),
    }
    return Score({**score.values, **of_text, "loss": loss}, score.checks)


def compare(
    task: Task,
    predictions: Mapping[str, Predictions],
    scored: Mapping[str, Sequence[Score]],
    how: Resampling,
    baseline: Sequence[Mapping[str, float | None]] = (),
) -> list[dict[str, Any]]:
    """Each metric with base, tuned and their difference as intervals (see `report`).

    baseline: a rule's values for each row; tuned is compared with it too.
    """
    losses = {name: predicted.losses for name, predicted in predictions.items()}
    nats = {name: ratio_interval(pairs, how) for name, pairs in losses.items()}
    gap = ratio_difference(losses["base"], losses["tuned"], how) if "base" in losses else None
    return [
        _row(LOSS, nats, gap),
        _row(PERPLEXITY, {name: perplexity(interval) for name, interval in nats.items()}, None),
        *compare_answers(task, scored, how, baseline),
    ]


def compare_answers(
    task: Task,
    scored: Mapping[str, Sequence[Score]],
    how: Resampling,
    baseline: Sequence[Mapping[str, float | None]] = (),
) -> list[dict[str, Any]]:
    """The metrics of `compare` that are of answers."""
    rows = []
    for metric in (*task.metrics, *TEXT_METRICS, *LABEL_METRICS):
        values = {name: [score.values.get(metric.name) for score in scores] for name, scores in scored.items()}
        if metric.rare and all(value is None for column in values.values() for value in column):
            continue
        means = {name: mean_interval(column, how) for name, column in values.items()}
        paired = None
        if "base" in values:
            paired = difference_interval(values["base"], values["tuned"], how)
        row = _row(metric, means, paired)
        usual = [rule.get(metric.name) for rule in baseline]
        if any(value is not None for value in usual):
            row["baseline"] = _json(mean_interval(usual, how))
            row["over_baseline"] = _json(difference_interval(usual, values["tuned"], how))
        rows.append(row)
    return rows


def _row(metric: Metric, intervals: Mapping[str, Interval | None], difference: Interval | None) -> dict[str, Any]:
    return {
        "name": metric.name,
        "title": metric.title,
        "unit": metric.unit,
        "better": metric.better,
        "about": metric.about,
        "base": _json(intervals.get("base")),
        "tuned": _json(intervals.get("tuned")),
        "difference": _json(difference),
    }


def _json(interval: Interval | None) -> dict[str, float] | None:
    return interval.to_json() if interval else None


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
