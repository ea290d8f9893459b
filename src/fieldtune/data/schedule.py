"""Rows to optimizer steps: which rows a step sees, in which order, and their windows, made one ahead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fieldtune.config import Config, Packing
from fieldtune.data.batches import Window, pad_window, window_with_media
from fieldtune.data.broken_media import BrokenRows
from fieldtune.data.encode import Encoded
from fieldtune.data.load import Rows
from fieldtune.data.media import BrokenMedia
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
    replicas: int = 1  # copies of the model that each take a micro-batch at a time, over all processes

    @classmethod
    def of(cls, config: Config, rows: int, replicas: int) -> Self:
        """The steps that a configuration asks for with so many rows."""
        trainer = config.trainer
        return cls(
            rows=rows,
            micro_batch_size=trainer.micro_batch_size,
            accumulation=trainer.accumulation,
            seed=config.seed,
            max_epochs=trainer.max_epochs,
            max_steps=trainer.max_steps,
            replicas=replicas,
        )

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

    Process `rank` of `world_size` gets every `world_size`-th row of a window, and the figures of all of it. trunk:
    beginnings that micro-batches have in common are computed once (see `data.packing`). broken: where rows are noted
    that cannot be read any more.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        schedule: Schedule,
        packing: Packing,
        pad_id: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        trunk: bool = True,
        broken: BrokenRows | None = None,
    ) -> None:
        self.rows, self.schedule, self.packing, self.pad_id = rows, schedule, packing, pad_id
        self.rank, self.world_size, self.trunk = rank, world_size, trunk
        self.position = 0  # optimizer steps given out
        self.broken = broken or BrokenRows(train=Rows([], [], []))
        self.seeing = any((row.ids < 0).any() for row in rows)

    def __len__(self) -> int:
        return self.schedule.total_steps

    def __iter__(self) -> Iterator[Window]:
        with ThreadPoolExecutor(1) as ahead:  # the next window is made while the device works on this one
            coming = ahead.submit(self.ready, self.position) if self.position < len(self) else None
            while coming is not None:
                window = coming.result()
                self.position += 1
                coming = ahead.submit(self.ready, self.position) if self.position < len(self) else None
                yield window

    def ready(self, step: int) -> Window:
        """The window of an optimizer step with the pictures of its rows; without the rows of one that breaks."""
        while True:
            try:
                return window_with_media(self.build(step))
            except BrokenMedia as error:
                self.broken.add(error)

    def build(self, step: int) -> Window:
        """The window of an optimizer step as it is laid out: no picture is read."""
        # In order of length, so that every process gets about as many tokens.
        rows = sorted((self.rows[index] for index in self.schedule.window(step)), key=lambda row: len(row.ids))
        dealt, size = rows[self.rank :: self.world_size], self.schedule.micro_batch_size
        mine = [row for row in dealt if not self.broken.holds(row)]
        if self.packing is Packing.none:
            window = pad_window(mine, size, self.pad_id)
        else:
            window = pack_window(mine, size, share=self.packing is Packing.shared_prefix, trunk=self.trunk)
        if self.world_size > 1:
            window["supervised"] = sum(row.supervised for row in rows)
            window["tokens"] = sum(len(row.ids) for row in rows)
            if self.seeing:
                window["broken"] = sum(row.supervised for row in dealt) - sum(row.supervised for row in mine)
        return window

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]
