"""The contender `fieldtune`: the engine as `training/stage.py` sets it up, with a clock in place of its watch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl

from fieldtune.data.batches import Window
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.training.module import FineTuning
from fieldtune.training.state_files import StateFiles
from fieldtune.training.strategies import make_trainer

from .job import Setting, Timings

# Words of the command line that this contender's configuration has beside the shared ones.
OVERRIDES: tuple[str, ...] = ()


class InOrder(Schedule):
    """The rows as they stand, so that every contender sees the same ones in a step."""

    def window(self, step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        size = self.micro_batch_size * self.accumulation
        return np.arange(step * size, (step + 1) * size)


def windows(setting: Setting, rows: list[Any], micro_batch: int, accumulation: int) -> Windows:
    """These rows as the engine cuts them into optimizer steps, common beginnings computed once."""
    schedule = InOrder(
        rows=len(rows),
        micro_batch_size=micro_batch,
        accumulation=accumulation,
        seed=setting.config.seed,
        max_epochs=1,
        max_steps=None,
    )
    return Windows(rows, schedule, setting.config.trainer.packing, setting.tokenizer.pad_id)


class Clock(pl.Callback):
    """The warm-up step before the first one, and a note after each."""

    def __init__(self, warm_up: Window) -> None:
        self.warm_up = warm_up
        self.timings = Timings()

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        with trainer.precision_plugin.train_step_context():
            module.training_step(self.warm_up, 0)
        self.timings.start()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, window: Window, index: int) -> None:
        self.timings.step(float(outputs["train/loss"]), window["computed"])


def fieldtune(setting: Setting) -> Timings:
    """Train by our engine; see `Setting`."""
    config = setting.config
    settings = replace(config.trainer, micro_batch_size=setting.micro_batch, accumulation=setting.accumulation)
    rows = [row for step in setting.steps for row in step]
    data = windows(setting, rows, setting.micro_batch, setting.accumulation)
    network = LanguageModelLoss(setting.model)
    module = FineTuning(network, settings, config.hardware.precision, data.schedule.total_steps)
    clock = Clock(windows(setting, [setting.warm_up], 1, 1).build(0))
    trainer = make_trainer(config, module.team, clock, StateFiles())
    module.train()
    trainer.fit(module, data)
    return clock.timings
