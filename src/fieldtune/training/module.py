"""The one Lightning module: an optimizer step is a window of micro-batches, its loss the mean over their tokens."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fieldtune.config import Precision, Scheduler, TrainerConfig
from fieldtune.data.batches import Window
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.training.state_files import random_state, set_random_state
from fieldtune.training.window import backward_window


class FineTuning(pl.LightningModule):
    """Trains `network` by AdamW. One Lightning batch is one optimizer step, so that accumulation is exact.

    Optimization is manual: the gradient of each micro-batch is that of its loss *sum* over the supervised tokens of
    the whole window, which a mean per micro-batch, averaged, is not.
    """

    def __init__(self, network: LanguageModelLoss, trainer: TrainerConfig, precision: Precision, steps: int) -> None:
        super().__init__()
        self.network = network
        self.settings = trainer
        self.precision = precision
        self.steps = steps  # optimizer steps of the whole run
        self.automatic_optimization = False
        self.strict_loading = False  # frozen weights are not in a checkpoint: they come from their source
        self.gradient_norm = math.nan  # of the last optimizer step, before clipping
        self._random_state: dict[str, Any] | None = None  # of the checkpoint that this training goes on from

    def training_step(self, window: Window, index: int) -> dict[str, float]:
        """One optimizer step; returns its loss (nats per supervised token) and learning rate."""
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        total = backward_window(self.network, window, self.manual_backward)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        return {"train/loss": float(total) / window["supervised"], "train/learning_rate": rate}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lightning calls this with unscaled gradients, in every precision: the place to measure and clip them."""
        limit = self.settings.clip_norm if self.settings.clip_norm is not None else math.inf
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.gradient_norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.settings
        optimizer = AdamW(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=settings.learning_rate,
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
            # A fused step unscales fp16 gradients by itself, after the place where they are clipped.
            fused=self.precision is not Precision.fp16,
        )
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, self.rate_factor)}

    def rate_factor(self, step: int) -> float:
        """Factor of the learning rate at optimizer step `step` (from 0): linear warm-up, then the scheduler."""
        warmup, scheduler = self.settings.warmup_steps, self.settings.scheduler
        if step < warmup:
            return (step + 1) / warmup
        if scheduler is Scheduler.constant:
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, self.steps - warmup))
        return 1.0 - progress if scheduler is Scheduler.linear else 0.5 * (1.0 + math.cos(math.pi * progress))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        checkpoint["random_state"] = random_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._random_state = checkpoint["random_state"]

    def on_train_start(self) -> None:
        """The last moment before the first step: what was drawn while things were set up does not count."""
        if self._random_state is not None:
            set_random_state(self._random_state)

    def trained_state(self) -> dict[str, Tensor]:
        """Copies of the weights that are trained, by the network's names."""
        return {
            name: parameter.detach().clone().cpu()
            for name, parameter in self.network.named_parameters()
            if parameter.requires_grad
        }
