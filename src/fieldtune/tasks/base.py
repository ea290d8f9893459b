"""What a task is: where its examples come from, how an answer is scored, what it writes beside them. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fieldtune.records import Example, Rejected


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that `Task.score` gives for each answer; its mean over the rows is reported."""

    name: str
    title: str
    unit: str  # share (0 to 1) | ratio
    better: str  # higher | lower
    about: str  # one sentence: what it measures


@dataclass(frozen=True, slots=True)
class Score:
    """values: a number per metric name, None where it does not apply. checks: what is wrong, in words."""

    values: Mapping[str, float | None]
    checks: tuple[str, ...] = ()


class Task(Protocol):
    """Everything that training, evaluation and serving need to know of a field."""

    name: str
    breakdowns: Sequence[str]  # keys of Example.meta by which rows are counted and metrics broken down
    metrics: Sequence[Metric]

    def examples(self, data: Any, seed: int) -> Iterator[Example | Rejected]:
        """Examples and refused pieces, in an order that depends only on the arguments.

        Broken source material that cannot be left out raises UserError.
        """
        ...

    def export(self, folder: Path, splits: Mapping[str, Path]) -> Sequence[Path]:
        """Write the files that the task's users know beside train/val/test.jsonl; returns their paths."""
        ...

    def score(self, example: Example, answer: str) -> Score:
        """Score one answer to an example's prompt by what can be checked in it."""
        ...

    def result_name(self) -> str:
        """Name that ends a result file, as in gpt2-124M-{golf-feedback}.pth."""
        ...
