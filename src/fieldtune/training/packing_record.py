"""What packing does to a training's rows: tokens, and seconds with it and without, for the run's manifest."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytorch_lightning as pl

from fieldtune.config import Packing
from fieldtune.data.batches import Window, pad_window, window_with_media
from fieldtune.data.encode import Encoded
from fieldtune.data.schedule import Windows
from fieldtune.data.trie import fewest_tokens
from fieldtune.training.window import backward_window

STEPS_COUNTED = 64  # optimizer steps laid out for the record, from all of the training


def packing_record(windows: Windows, trial: PackingTrial) -> dict[str, Any]:
    """Tokens of the steps counted: of their rows, computed, padded to the longest, and the fewest there can be.

    Seconds are those of the trial, if there was one. Empty where rows are not packed or several processes share them.
    """
    if not _packs(windows):
        return {}
    total = windows.schedule.total_steps
    steps = sorted(set(np.linspace(0, total - 1, min(STEPS_COUNTED, total)).astype(int).tolist()))
    found = {"steps": len(steps), "tokens": 0, "computed": 0, "padded": 0, "fewest": 0}
    for step in steps:
        rows, window = rows_of(windows, step), windows.build(step)
        found["tokens"] += window["tokens"]
        found["computed"] += window["computed"]
        found["padded"] += padded(windows, rows)["computed"]
        found["fewest"] += fewest_tokens([row.ids[: row.inputs] for row in rows])
    return {**found, **trial.record}


def _packs(windows: Windows) -> bool:
    """Whether there is something to record: rows that are packed, all by this process."""
    return windows.packing is not Packing.none and windows.world_size == 1


def rows_of(windows: Windows, step: int) -> list[Encoded]:
    return [windows.rows[number] for number in windows.schedule.window(step)]


def padded(windows: Windows, rows: list[Encoded]) -> Window:
    """The rows without packing, in micro-batches of half as many: so their activations take no more memory."""
    return pad_window(rows, max(1, windows.schedule.micro_batch_size // 2), windows.pad_id)


class PackingTrial(pl.Callback):
    """Times the gradients of the first `steps` windows with packing and without, in turn; nothing is trained by it."""

    def __init__(self, windows: Windows, steps: int) -> None:
        self._windows, self._steps = windows, min(steps, len(windows)) if _packs(windows) else 0
        self.record: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.global_step or not self._steps:
            return
        seconds = {"seconds": 0.0, "padded_seconds": 0.0}
        self._time(trainer, module, self._windows.ready(0))  # the first pass sets things up
        for step in range(self._steps):
            seconds["seconds"] += self._time(trainer, module, self._windows.ready(step))
            rows = rows_of(self._windows, step)
            without = window_with_media(padded(self._windows, rows))
            seconds["padded_seconds"] += self._time(trainer, module, without)
        self.record = {"timed_steps": self._steps, **{name: round(value, 3) for name, value in seconds.items()}}

    @staticmethod
    def _time(trainer: pl.Trainer, module: Any, window: Window) -> float:
        window = trainer.strategy.batch_to_device(window)
        started = time.monotonic()
        with trainer.precision_plugin.train_step_context():
            total = backward_window(module.network, window, module.manual_backward, module.team)
        total.item()  # a GPU is done when its result is there
        seconds = time.monotonic() - started
        module.zero_grad()
        return seconds
