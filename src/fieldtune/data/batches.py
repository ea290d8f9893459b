"""Rows to optimizer steps: which rows a step sees, in which order, padded to what is needed and no more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from fieldtune.data.encode import Encoded


class MicroBatch(TypedDict):
    """What one forward pass sees.

    ids [rows, length]: right-padded token ids. where [supervised]: flat positions (row * length + column) whose next
    token is trained. targets [supervised]: those next tokens.
    """

    ids: Tensor
    where: Tensor
    targets: Tensor


class Window(TypedDict):
    """One optimizer step: the micro-batches of this process, and the supervised tokens of all processes' micro-batches
    (the loss's denominator)."""

    micro_batches: list[MicroBatch]  # none, where a short window has fewer rows than there are processes
    supervised: int
    tokens: int  # real tokens of all processes, padding not counted


def collate(rows: Sequence[Encoded], pad_id: int) -> MicroBatch:
    """Rows padded on the right to the longest one. Causal attention never looks right, so no mask is needed."""
    length = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    trained = np.zeros((len(rows), length), dtype=np.bool_)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        trained[number, : len(row.ids)] = row.trained
    # Position t predicts token t + 1.
    row_numbers, columns = np.nonzero(trained[:, 1:])
    return {
        "ids": torch.from_numpy(ids),
        "where": torch.from_numpy(row_numbers * length + columns),
        "targets": torch.from_numpy(ids[row_numbers, columns + 1]),
    }


def idle_batch() -> MicroBatch:
    """A micro-batch without a label: for a process that has no row left but must join the others' forward pass."""
    none = torch.zeros(0, dtype=torch.int64)
    return {"ids": torch.zeros(1, 1, dtype=torch.int64), "where": none, "targets": none}


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which rows each optimizer step sees: a seeded shuffle per epoch, cut into windows; the last may be short."""

    rows: int
    micro_batch_size: int  # rows a forward pass
    accumulation: int  # micro-batches an optimizer step
    seed: int
    max_epochs: int
    max_steps: int | None  # optimizer steps
    replicas: int = 1  # copies of the model that each take a micro-batch at a time, over all processes

    @property
    def step_rows(self) -> int:
        """Rows of an optimizer step, over all processes; the last of an epoch may have fewer."""
        return self.micro_batch_size * self.accumulation * self.replicas

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.step_rows)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all: to the end of `max_epochs` or to `max_steps`, whichever comes first."""
        steps = self.steps_per_epoch * self.max_epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch_of(self, step: int) -> int:
        """Epoch (from 0) of the optimizer step number `step` (from 0)."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether optimizer step `step` (from 0) is the last of its epoch or of the run."""
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.total_steps

    def window(self, step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Row numbers of an optimizer step."""
        order = np.random.default_rng([self.seed, self.epoch_of(step)]).permutation(self.rows)
        first = (step % self.steps_per_epoch) * self.step_rows
        return order[first : first + self.step_rows]


class Windows:
    """An iterable of `Window`s for Lightning; it can be stopped at any step and taken up there again.

    Process `rank` of `world_size` gets every `world_size`-th row of a window, and the figures of all of it.
    """

    def __init__(
        self, rows: Sequence[Encoded], schedule: Schedule, pad_id: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows, self.schedule, self.pad_id = rows, schedule, pad_id
        self.rank, self.world_size = rank, world_size
        self.position = 0  # optimizer steps given out

    def __len__(self) -> int:
        return self.schedule.total_steps

    def __iter__(self) -> Iterator[Window]:
        while self.position < len(self):
            step = self.position
            self.position += 1
            yield self.build(step)

    def build(self, step: int) -> Window:
        """The window of an optimizer step. Rows of like length share a micro-batch: less padding, the same sum."""
        rows = sorted((self.rows[index] for index in self.schedule.window(step)), key=lambda row: len(row.ids))
        size, mine = self.schedule.micro_batch_size, rows[self.rank :: self.world_size]
        return {
            "micro_batches": [collate(mine[first : first + size], self.pad_id) for first in range(0, len(mine), size)],
            "supervised": sum(row.supervised for row in rows),
            "tokens": sum(len(row.ids) for row in rows),
        }

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]
