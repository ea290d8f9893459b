"""The one Lightning module: an optimizer step is a window of micro-batches, its loss the mean over their tokens."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fieldtune.config import AdapterConfig, OptimizerKind, Precision, Scheduler, TrainerConfig
from fieldtune.data.batches import Window
from fieldtune.errors import UserError
from fieldtune.models.adapters import learning_rates
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.quantized import make_optimizer
from fieldtune.training.state_files import random_state, set_random_state
from fieldtune.training.team import Team
from fieldtune.training.window import backward_window


class FineTuning(pl.LightningModule):
    """Trains `network` by AdamW. One Lightning batch is one optimizer step, so that accumulation is exact.

    Optimization is manual: the gradient of each micro-batch is that of its loss *sum* over the supervised tokens of
    the whole window, which a mean per micro-batch, averaged, is not.
    """

    def __init__(
        self,
        network: LanguageModelLoss,
        trainer: TrainerConfig,
        precision: Precision,
        steps: int,
        team: Team | None = None,
        adapter: AdapterConfig | None = None,
    ) -> None:
        """adapter: says whether parts of the network have learning rates of their own."""
        super().__init__()
        self.adapter = adapter or AdapterConfig()
        self.network = network
        self.team = team or Team()
        self.settings = trainer
        self.precision = precision
        self.steps = steps  # optimizer steps of the whole run
        self.automatic_optimization = False
        self.strict_loading = False  # frozen weights are not in a checkpoint: they come from their source
        self.gradient_norm = math.nan  # of the last optimizer step, before clipping
        self._random_state: dict[str, Any] | None = None  # of the checkpoint that this training goes on from
        self.final_state: dict[str, Tensor] = {}  # of weights that are shared out
        self.skipped_steps = 0  # optimizer steps whose gradients were not finite: nothing was changed
        self.skipped_in_a_row = 0

    def training_step(self, window: Window, index: int) -> dict[str, float]:
        """One optimizer step; returns its loss (nats per supervised token), its learning rate and the steps skipped.

        The loss and the gradients are those of the windows of all processes; the gradients are summed over them once.
        """
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        if "broken" in window:
            lost = self.team.sum(torch.tensor(float(window["broken"])))
            window = {**window, "supervised": window["supervised"] - round(lost)}
        total = backward_window(self.network, window, self.manual_backward, self.team)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.team.sum_gradients(trained)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        self._count_skipped(self.team.norm_after_step(self.gradient_norm))
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        return {
            "train/loss": self.team.sum(total) / window["supervised"] if window["supervised"] else math.nan,
            "train/learning_rate": rate,
            "train/skipped_steps": self.skipped_steps,
        }

    def configure_model(self) -> None:
        self.team.shard(self.network)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lightning calls this with unscaled gradients, in every precision: the place to measure and clip them.

        With a gradient that is not finite the step must change nothing, and without gradients no optimizer does.
        (Under fp16 the scaler has seen it by now: it skips the step too, and scales the loss less from then on.)
        """
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.gradient_norm = self.team.clip(trained, self.settings.clip_norm or math.inf)
        if not math.isfinite(self.gradient_norm):
            for parameter in trained:
                parameter.grad = None

    def _count_skipped(self, norm: float) -> None:
        self.gradient_norm = norm
        if math.isfinite(norm):
            self.skipped_in_a_row = 0
            return
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.settings.stop_after_bad_steps:
            raise UserError(
                f"{self.skipped_in_a_row} optimizer steps in a row had gradients that are not finite, the last of them "
                f"step {self.trainer.global_step}; give a lower trainer.learning_rate, trainer.clip_norm=1.0"
                + (", or hardware.precision=bf16" if self.precision is Precision.fp16 else ", or precision=fp32")
            )

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.settings
        by_rate = learning_rates(self.network, settings, self.adapter)
        trained: list[Any] = [{"params": those, "lr": rate} for rate, those in by_rate.items()]
        wanted: dict[str, Any] = {
            "lr": settings.learning_rate,
            "betas": (settings.betas[0], settings.betas[1]),
            "weight_decay": settings.weight_decay,
        }
        if settings.optimizer is OptimizerKind.paged_adamw_8bit:
            optimizer = make_optimizer(trained, **wanted)
        else:
            # A fused step unscales fp16 gradients by itself, after the place where they are clipped.
            optimizer = AdamW(trained, **wanted, fused=self.precision is not Precision.fp16)
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

    def on_train_end(self) -> None:
        """Shared-out weights are put together while the strategy still has them on its devices."""
        if self.team.shares_samples:
            self.final_state = self.trained_state()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        checkpoint["random_state"] = self.team.of_every_rank(random_state())
        # DeepSpeed keeps a "skipped_steps" of its own in a checkpoint.
        checkpoint["bad_steps"] = (self.skipped_steps, self.skipped_in_a_row)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._random_state = checkpoint["random_state"][self.team.rank.number]
        self.skipped_steps, self.skipped_in_a_row = checkpoint["bad_steps"]

    def on_train_start(self) -> None:
        """The last moment before the first step: what was drawn while things were set up does not count."""
        if self._random_state is not None:
            set_random_state(self._random_state)

    def trained_state(self) -> dict[str, Tensor]:
        """Whole copies of the weights that are trained, by the network's names; every rank must ask for them."""
        return self.team.trained_state(self.network)
