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
    """One optimizer step: its micro-batches, and the supervised tokens of all of them (the loss's denominator)."""

    micro_batches: list[MicroBatch]
    supervised: int
    tokens: int  # real tokens, padding not counted


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


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which rows each optimizer step sees: a seeded shuffle per epoch, cut into windows; the last may be short."""

    rows: int
    micro_batch_size: int  # rows a forward pass
    accumulation: int  # micro-batches an optimizer step
    seed: int
    max_epochs: int
    max_steps: int | None  # optimizer steps

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / (self.micro_batch_size * self.accumulation))

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
        size = self.micro_batch_size * self.accumulation
        first = (step % self.steps_per_epoch) * size
        return order[first : first + size]


class Windows:
    """An iterable of `Window`s for Lightning; it can be stopped at any step and taken up there again."""

    def __init__(self, rows: Sequence[Encoded], schedule: Schedule, pad_id: int) -> None:
        self.rows, self.schedule, self.pad_id = rows, schedule, pad_id
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
        size = self.schedule.micro_batch_size
        return {
            "micro_batches": [collate(rows[first : first + size], self.pad_id) for first in range(0, len(rows), size)],
            "supervised": sum(row.supervised for row in rows),
            "tokens": sum(len(row.ids) for row in rows),
        }

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]
