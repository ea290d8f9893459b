"""What a contender's process is asked, and what a contender gives back. No torch here."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fieldtune.config import Config
from fieldtune.data.encode import Encoded

STEP_ROWS = 8  # rows of an optimizer step, for every contender
SHORT = 64  # tokens of the warm-up row of a trial


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work. Its rows: the warm-up row, then those of each optimizer step, in the file `rows`."""

    contender: str
    config: str  # path of the resolved configuration
    rows: str  # path of the rows
    folder: str  # scratch
    steps: int  # timed optimizer steps
    micro_batch: int  # rows a forward
    trial: bool = False  # try every micro-batch instead, on part of the first step's rows

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Setting:
    """What a contender is given. `model` has its adapters; `steps` are the rows of each optimizer step."""

    model: Any
    tokenizer: Any
    config: Config
    steps: Sequence[Sequence[Encoded]]
    warm_up: Encoded  # an optimizer step on this row alone comes first, untimed: the optimizer's state is then there
    micro_batch: int  # rows a forward
    folder: Path

    @property
    def accumulation(self) -> int:
        """Micro-batches an optimizer step."""
        return len(self.steps[0]) // self.micro_batch


@dataclass(slots=True)
class Timings:
    """Per timed optimizer step: seconds, loss (nats a supervised token), tokens that went through the layers."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    computed_tokens: list[int] = field(default_factory=list)
    _since: float = 0.0

    def start(self) -> None:
        """The warm-up is done; the first step begins."""
        self._since = time.perf_counter()

    def step(self, loss: float, computed_tokens: int) -> None:
        """A step is done, its data loading included: it began when the one before ended."""
        now = time.perf_counter()
        self.seconds.append(now - self._since)
        self.losses.append(loss)
        self.computed_tokens.append(computed_tokens)
        self._since = time.perf_counter()


def by_length(rows: Sequence[Encoded]) -> list[Encoded]:
    """Longest first: rows of like length share a micro-batch, and the largest memory is asked for first."""
    return sorted(rows, key=lambda row: len(row.ids), reverse=True)


def padded_tokens(rows: Sequence[Encoded], micro_batch: int) -> int:
    """Tokens that a step computes when its micro-batches are padded to their longest row."""
    ordered = [len(row.ids) for row in by_length(rows)]
    return sum(
        len(ordered[first : first + micro_batch]) * ordered[first] for first in range(0, len(ordered), micro_batch)
    )


def write_rows(path: Path, rows: Sequence[Encoded]) -> None:
    np.savez(
        path,
        ids=np.concatenate([row.ids for row in rows]),
        trained=np.concatenate([row.trained for row in rows]),
        lengths=np.array([len(row.ids) for row in rows]),
    )


def read_rows(path: Path) -> list[Encoded]:
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        parts = zip(np.split(file["ids"], ends), np.split(file["trained"], ends), strict=True)
        return [Encoded(ids, trained) for ids, trained in parts]
