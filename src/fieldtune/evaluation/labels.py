"""Rows whose answer is one of a few labels: how sure each system is, and whether it may be believed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune.config import Config, Packing
from fieldtune.data.encode import Encoder
from fieldtune.data.load import Rows, load_split
from fieldtune.datasets import Dataset
from fieldtune.evaluation.ablation import Change
from fieldtune.evaluation.calibration import (
    BINS,
    HOTTEST,
    brier,
    calibration_error,
    coverage,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    reliability,
)
from fieldtune.evaluation.classes import class_table, confusion, macro_f1, most_confused
from fieldtune.evaluation.metrics import Resampling, difference_interval, mean_interval
from fieldtune.models.label_scores import label_logs, label_row
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.progress import Progress
from fieldtune.records import SPLITS, Example, read_examples
from fieldtune.tasks.base import Labels, Metric, Score, Task

log = logging.getLogger("fieldtune")

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # confidence from which an answer is taken
CALIBRATION_ROWS = 2_000  # of the validation split, for one temperature
LABEL_METRICS = (
    Metric(
        "label",
        "Most probable label",
        "share",
        "higher",
        "The label of the highest probability is the right one.",
        rare=True,
    ),
    Metric(
        "brier",
        "Brier score",
        "ratio",
        "lower",
        "Squared distance of the labels' probabilities from the truth.",
        rare=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The rows that ask for a label. numbers: of the rows; targets: the number of each one's right label."""

    examples: Sequence[Example]
    numbers: list[int]
    targets: NDArray[np.int64]


@dataclass(slots=True)
class LabelTest:
    """The label questions of an evaluation, and how probable each system finds each label [rows, labels].

    validation: the rows that the tuned model's temperature is fitted on; None where there are none, and `why` says so.
    usual: the label of most training rows.
    """

    names: Sequence[str]
    evaluated: Asked
    validation: Asked | None
    why: str
    left_out: int
    usual: str
    logs: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    fitted: NDArray[np.float64] | None = None

    def measure(self, name: str, model: Any, encoder: Encoder, packing: Packing) -> None:
        """Take the probabilities of the labels from the model called `name`."""
        self.logs[name] = self._of(f"labels of the {name} model", model, encoder, packing, self.evaluated)
        if name == "tuned" and self.validation is not None:
            self.fitted = self._of("labels of the validation rows", model, encoder, packing, self.validation)

    def _of(self, what: str, model: Any, encoder: Encoder, packing: Packing, asked: Asked) -> NDArray[np.float64]:
        progress = Progress(what, len(asked.numbers))
        prompts = [asked.examples[number].prompt for number in asked.numbers]
        return label_logs(LanguageModelLoss(model), encoder, prompts, self.names, packing, progress.advance)

    @property
    def temperature(self) -> float | None:
        """Fitted on the validation rows; None without them."""
        if self.validation is None or self.fitted is None:
            return None
        return fit_temperature(self.fitted, self.validation.targets)

    def with_labels(self, name: str, scores: Sequence[Score]) -> list[Score]:
        """The scores of a system with those of `LABEL_METRICS`."""
        shares, found = probabilities(self.logs[name]), list(scores)
        distances = brier(shares, self.evaluated.targets)
        for row, number in enumerate(self.evaluated.numbers):
            right = float(shares[row].argmax() == self.evaluated.targets[row])
            more = {"label": right, "brier": float(distances[row])}
            found[number] = replace(found[number], values={**found[number].values, **more})
        return found

    def lines(self) -> dict[int, dict[str, Any]]:
        """What predictions.jsonl says of a row: {label, confidence, calibrated} of the tuned model, by row."""
        logs, temperature = self.logs["tuned"], self.temperature
        shares = probabilities(logs)
        calibrated = None if temperature is None else probabilities(logs, temperature)
        return {
            number: {
                "label": self.names[int(shares[row].argmax())],
                "confidence": round(float(shares[row].max()), 6),
                "calibrated": None if calibrated is None else round(float(calibrated[row].max()), 6),
            }
            for row, number in enumerate(self.evaluated.numbers)
        }

    def summary(self, how: Resampling) -> dict[str, Any]:
        """What metrics.json says of the tuned model's labels. how: for all rows of the evaluation."""
        if how.groups is not None:
            how = replace(how, groups=[how.groups[number] for number in self.evaluated.numbers])
        logs, targets, temperature = self.logs["tuned"], self.evaluated.targets, self.temperature
        chosen = logs.argmax(axis=1)
        right = chosen == targets
        matrix = confusion(targets, chosen, len(self.names))
        table = class_table(targets, chosen, self.names, how)
        accuracy, mass = mean_interval(right.astype(float).tolist(), how), np.exp(logs).sum(axis=1)
        majority = [float(self.names[target] == self.usual) for target in targets]
        always, above = mean_interval(majority, how), difference_interval(majority, right.astype(float).tolist(), how)
        assert accuracy is not None and always is not None and above is not None
        # Answers are held back by the confidence that can be had: the calibrated one where there is a temperature.
        sureness = probabilities(logs, temperature or 1.0).max(axis=1)
        return {
            "names": list(self.names),
            "rows": len(targets),
            "left_out": self.left_out,
            "accuracy": accuracy.to_json(),
            "majority": {"label": self.usual, **always.to_json()},
            "over_majority": above.to_json(),
            "macro_f1": macro_f1(table),
            "mass": float(mass.mean()),
            "temperature": temperature,
            "fitted_on": 0 if self.validation is None else len(self.validation.numbers),
            "why": self.why or _at_the_end(temperature),
            "before": _sureness(logs, targets, 1.0, how),
            "after": None if temperature is None else _sureness(logs, targets, temperature, how),
            "coverage": coverage(sureness, right, THRESHOLDS, how),
            "classes": table,
            "confusion": matrix.tolist(),
            "confused": most_confused(matrix, self.names),
        }


def _sureness(
    logs: NDArray[np.float64], targets: NDArray[np.int64], temperature: float, how: Resampling
) -> dict[str, Any]:
    """How well probabilities at a temperature tell what is right."""
    shares = probabilities(logs, temperature)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == targets
    losses = mean_interval(negative_log_likelihood(logs, targets, temperature).tolist(), how)
    distances = mean_interval(brier(shares, targets).tolist(), how)
    assert losses is not None and distances is not None
    return {
        "confidence": float(confidence.mean()),
        "ece": calibration_error(confidence, right, how).to_json(),
        "ece_mass": calibration_error(confidence, right, how, "mass").to_json(),
        "bins": BINS,
        "loss": losses.to_json(),
        "brier": distances.to_json(),
        "reliability": reliability(confidence, right, how),
    }


def _at_the_end(temperature: float | None) -> str:
    if temperature is None or 1.001 / HOTTEST < temperature < HOTTEST / 1.001:
        return ""
    return f"The temperature is at the end of its range, {temperature:g}: the validation rows do not bound it."


def label_test(
    task: Task,
    config: Config,
    dataset: Dataset,
    rows: Rows,
    encoder: Encoder,
    change: Change | None = None,
    readable: Callable[[Rows], Rows] = lambda rows: rows,
) -> LabelTest | None:
    """The label questions among the rows; None if there are none. Rows that a label would make too long are left out.

    The temperature is fitted on the first validation rows, with the same `change` as the rows, as far as they are
    `readable`; `LabelTest.why` says why it is not.
    """
    labels = task.labels(config.data, (row for split in SPLITS for row in read_examples(dataset.split(split))))
    if labels is None:
        return None
    length = config.model.context_length
    evaluated, left_out = _asked(labels, rows, encoder, length)
    if not evaluated.numbers:
        return None
    if left_out:
        log.warning("%d rows are left out of the label figures: a label would exceed model.context_length", left_out)
    told = Counter(name for row in read_examples(dataset.split("train")) if (name := labels.of(row)) is not None)
    usual = told.most_common(1)[0][0] if told else ""
    validation, why = None, "No validation row asks for a label, so no temperature was fitted."
    if config.evaluation.split == "val":
        why = "The validation rows are those evaluated, so no temperature was fitted on them."
    elif dataset.rows["val"]:
        some = load_split(dataset, "val", encoder, length, rows=CALIBRATION_ROWS, change=change)
        validation = _asked(labels, readable(some), encoder, length)[0]
    if validation is None or not validation.numbers:
        return LabelTest(labels.names, evaluated, None, why, left_out, usual)
    return LabelTest(labels.names, evaluated, validation, "", left_out, usual)


def _asked(labels: Labels, rows: Rows, encoder: Encoder, context_length: int) -> tuple[Asked, int]:
    known = {name: number for number, name in enumerate(labels.names)}
    numbers, targets, left_out, longest = list[int](), list[int](), 0, ""
    for number, example in enumerate(rows.examples):
        right = labels.of(example)
        if right is None:
            continue
        if not longest:  # a label is as long after one prompt as after another
            lengths = {name: len(label_row(encoder, example.prompt, name).ids) for name in known}
            longest = max(lengths, key=lengths.__getitem__)
        if len(label_row(encoder, example.prompt, longest).ids) > context_length:
            left_out += 1
            continue
        numbers.append(number)
        targets.append(known[right])
    return Asked(rows.examples, numbers, np.array(targets, dtype=np.int64)), left_out


def label_line(found: Mapping[str, Any]) -> str:
    """A `LabelTest.summary` in one line."""
    after = found["after"]
    corrected = f", {after['ece']['value']:.3f} at temperature {found['temperature']:.3g}" if after else ""
    return (
        f"{found['rows']} rows of {len(found['names'])} labels: {found['accuracy']['value']:.1%} right (always "
        f"{found['majority']['label']}: {found['majority']['value']:.1%}), "
        f"calibration error {found['before']['ece']['value']:.3f}{corrected}"
    )
