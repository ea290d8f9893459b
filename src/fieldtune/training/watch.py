"""What happens around optimizer steps: metrics, evaluation, samples, the best weights, checkpoints, early stopping."""

from __future__ import annotations

import json
import logging
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from safetensors.torch import load_file

from fieldtune import stopping
from fieldtune.config import TrainerConfig
from fieldtune.data.batches import Window
from fieldtune.data.broken_media import BrokenRows
from fieldtune.data.encode import Encoder
from fieldtune.data.load import Rows
from fieldtune.data.media import BrokenMedia
from fieldtune.data.schedule import Schedule
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.scoring import mean_loss, row_losses
from fieldtune.progress import Progress
from fieldtune.records import dump_line
from fieldtune.runs import write_text
from fieldtune.tracking import Tracker
from fieldtune.training.attempts import Attempts
from fieldtune.training.checkpoints import BEST, CHECKPOINTS, Checkpoints
from fieldtune.training.data_wait import DataWait
from fieldtune.training.module import FineTuning

log = logging.getLogger("fieldtune")

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


class Watch(pl.Callback):
    """Watches a run in its folder. Its state is part of the checkpoint, so that a continued run goes on from it."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        settings: TrainerConfig,
        schedule: Schedule,
        val: Rows,
        encoder: Encoder,
        tracker: Tracker,
        broken: BrokenRows,
    ) -> None:
        """broken: takes the rows that cannot be read any more."""
        self.broken = broken
        self.checkpoints, self.folder = checkpoints, checkpoints.run_dir
        self.writes = checkpoints.writes  # ranks above 0 only lend their devices
        self.settings, self.schedule = settings, schedule
        self.val, self.encoder, self.tracker = val, encoder, tracker
        self.attempts = Attempts(self.folder)
        self.best_loss, self.best_step, self.worse_evaluations = math.inf, 0, 0
        self.seconds = 0.0  # spent in optimizer steps
        self.data_wait = DataWait()
        self.tokens = 0  # real tokens seen
        self.stopped_early = False
        self.last_step = 0
        self.last_losses: dict[str, float] = {}
        self.computed = 0  # tokens that passed through the model of this process
        self._started = self._ended = 0.0

    # --- Lightning's hooks ------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        stopping.install()  # Lightning has put its own handler of SIGTERM before ours
        step = trainer.global_step
        self._drop_lines_after(step)
        if self.writes:
            self.attempts.begin(step)
        self._progress = Progress("training", self.schedule.total_steps, done=step)
        if step == 0:
            self._record(0, self._evaluate(module, 0))
        self._ended = time.monotonic()
        self._stop_if_no_better(trainer, step)  # a run cut off after it had stopped does not go on

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, window: Window, index: int) -> None:
        if self.writes:
            self.attempts.step(trainer.global_step + 1)
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, window: Window, index: int) -> None:
        seconds, waited = time.monotonic() - self._started, self._started - self._ended
        self.seconds += seconds
        self.tokens += window["tokens"]
        self.computed += window["computed"]
        step = self.last_step = trainer.global_step
        wait_share = self.data_wait.add(waited, seconds, self.schedule.epoch_of(step - 1))
        ended = self.schedule.ends_epoch(step - 1)
        metrics: dict[str, float] = {}
        if step % self.settings.log_every == 0 or ended:
            metrics = {
                **outputs,
                "train/gradient_norm": module.gradient_norm,
                "train/tokens_per_second": window["tokens"] / seconds,
                "train/data_wait": wait_share,
                "epoch": self.schedule.epoch_of(step - 1) + 1,
            }
        if self._evaluation_due(step):
            metrics |= self._evaluate(module, step)
        if metrics:
            self._record(step, metrics)
        if ended:
            self._sample(module, step)
        self._stop_if_no_better(trainer, step)
        # Of several processes one may have got the signal: they stop together.
        stop = trainer.strategy.reduce_boolean_decision(stopping.asked() is not None, all=False)
        if stop or self.stopped_early or self._checkpoint_due(step):
            self.checkpoints.save(trainer, step, [self.folder / METRICS, self.folder / SAMPLES])
        if stop:
            log.info("asked to stop: step %d is done and saved", step)
            trainer.should_stop = True
        if self.writes:
            self._progress.advance(f"loss {outputs['train/loss']:.3f}")
        self._ended = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.attempts.end()
        if self.writes and self.data_wait.line():
            log.info("%s", self.data_wait.line())
        self.broken.merge(module.team.of_every_rank(self.broken.reasons))

    def state_dict(self) -> dict[str, Any]:
        names = (
            "best_loss",
            "best_step",
            "worse_evaluations",
            "seconds",
            "tokens",
            "computed",
            "stopped_early",
            "last_step",
            "last_losses",
        )
        return {**{name: getattr(self, name) for name in names}, "data_wait": self.data_wait.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.data_wait.load_state_dict(state_dict.pop("data_wait"))
        for name, value in state_dict.items():
            setattr(self, name, value)

    def facts(self) -> dict[str, Any]:
        """Of the run as a whole, for its manifest."""
        return {
            "stopped_early": self.stopped_early,
            "seconds": round(self.seconds, 2),
            "tokens": self.tokens,
            "computed_tokens": self.computed,
            "data_wait": self.data_wait.facts(),
            **self.attempts.facts(),
        }

    def summary(self) -> dict[str, float]:
        """The figures that sum a run up."""
        best = {"val/best_loss": self.best_loss} if math.isfinite(self.best_loss) else {}
        return {**self.last_losses, **best}

    # --- when -------------------------------------------------------------------------------------------------

    def _evaluation_due(self, step: int) -> bool:
        return step % self.settings.eval_every == 0 or step == self.schedule.total_steps

    def _checkpoint_due(self, step: int) -> bool:
        every = self.settings.checkpoint_every
        if every is None:
            return self._evaluation_due(step)
        return step % every == 0 or step == self.schedule.total_steps

    # --- what they do -----------------------------------------------------------------------------------------

    def _evaluate(self, module: FineTuning, step: int) -> dict[str, float]:
        if not self.val.encoded:
            return {}
        with module.trainer.precision_plugin.forward_context():
            losses = row_losses(
                module.network,
                module.team.share(self.val.encoded),
                self.encoder.tokenizer.pad_id,
                self.settings.micro_batch_size,
                self.settings.packing,
                # Where weights are shared out all ranks take every pass together, so none may leave one out.
                broken=None if module.team.shares_samples else self.broken,
            )
        losses = module.team.gather_losses(losses)
        if not sum(count for _, count in losses):
            return {}
        loss = mean_loss(losses)
        log.info("step %d: validation loss %.4f, perplexity %.2f", step, loss, math.exp(min(loss, 700)))
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.worse_evaluations = loss, step, 0
            self.checkpoints.keep_best(module.trained_state())
        else:
            self.worse_evaluations += 1
        return {"val/loss": loss}

    def _stop_if_no_better(self, trainer: pl.Trainer, step: int) -> None:
        if self.settings.patience is not None and self.worse_evaluations >= self.settings.patience:
            log.info("no better validation loss for %d evaluations: stopping at step %d", self.worse_evaluations, step)
            self.stopped_early = trainer.should_stop = True

    def _sample(self, module: FineTuning, step: int) -> None:
        readable = (e for e, row in zip(self.val.examples, self.val.encoded, strict=True) if not self.broken.holds(row))
        examples = list(islice(readable, self.settings.sample_rows))
        if not examples or not (self.writes or module.team.shares_samples):
            return
        prompts = [self.encoder.prompt(example.prompt) for example in examples]
        sampling = Sampling(self.settings.sample_tokens, self.settings.temperature, self.settings.top_k, seed=step)
        in_step = module.team.shares_samples
        try:
            with module.trainer.precision_plugin.forward_context(), module.team.answering(module.network):
                answers = generate(module.network.model, self.encoder.tokenizer, prompts, sampling, in_step=in_step)
        except BrokenMedia as error:
            if in_step:  # the other ranks wait for this one
                raise
            self.broken.add(error)
            return
        if not self.writes:
            return
        rows = [(step, e.id, e.prompt_text, answer.text) for e, answer in zip(examples, answers, strict=True)]
        with (self.folder / SAMPLES).open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(dump_line(dict(zip(("step", "id", "prompt", "answer"), row, strict=True))))
        self.tracker.table("samples", ("step", "id", "prompt", "answer"), rows, step)
        for _, identity, _, answer in rows:
            log.info("sample for %s after step %d:\n%s", identity, step, answer)

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        if not metrics or not self.writes:
            return
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(dump_line({"step": step, **metrics}))
        self.tracker.log(metrics, step)
        self.last_losses |= {name: value for name, value in metrics.items() if name.endswith("/loss")}

    def _drop_lines_after(self, step: int) -> None:
        """A run that was cut off may have told of steps after its last checkpoint; they will be done again."""
        for name in (METRICS, SAMPLES) if self.writes else ():
            path = self.folder / name
            if path.exists():
                kept = [line for line in _whole_lines(path) if line["step"] <= step] if step else []
                write_text(path, "".join(dump_line(line) for line in kept))


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that a process may have died over: what is left of its last line does not count."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    whole = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            whole.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: line %d is broken off; what came after the checkpoint is done again", path, number)
            break
    return whole


def load_best(folder: Path, module: FineTuning) -> None:
    """Put the best weights of the run into the network."""
    path = folder / CHECKPOINTS / BEST
    if not path.exists():
        return
    missing, unexpected = module.network.load_state_dict(load_file(str(path)), strict=False)
    trained = {name for name, parameter in module.network.named_parameters() if parameter.requires_grad}
    if unexpected or trained & set(missing):
        raise RuntimeError(f"{path} does not hold this run's trained weights")
