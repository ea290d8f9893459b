"""Rows to optimizer steps: which rows a step sees, in which order, and their windows, made one ahead."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fieldtune.config import Packing
from fieldtune.data.batches import Window, pad_window
from fieldtune.data.encode import Encoded
from fieldtune.data.packing import pack_window


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

    def __init__(self, rows: Sequence[Encoded], schedule: Schedule, packing: Packing, pad_id: int) -> None:
        self.rows, self.schedule, self.packing, self.pad_id = rows, schedule, packing, pad_id
        self.position = 0  # optimizer steps given out
        self.waited = 0.0  # seconds that the latest optimizer step waited for its window

    def __len__(self) -> int:
        return self.schedule.total_steps

    def __iter__(self) -> Iterator[Window]:
        with ThreadPoolExecutor(1) as ahead:  # the next window is made while the device works on this one
            coming = ahead.submit(self.build, self.position) if self.position < len(self) else None
            while coming is not None:
                asked = time.monotonic()
                window = coming.result()
                self.waited = time.monotonic() - asked
                self.position += 1
                coming = ahead.submit(self.build, self.position) if self.position < len(self) else None
                yield window

    def build(self, step: int) -> Window:
        """The window of an optimizer step."""
        rows = [self.rows[index] for index in self.schedule.window(step)]
        size = self.schedule.micro_batch_size
        if self.packing is Packing.none:
            return pad_window(rows, size, self.pad_id)
        return pack_window(rows, size, share=self.packing is Packing.shared_prefix)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]
