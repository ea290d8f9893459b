"""The train stage: a data set and a model in, a tuned model and its curves out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from fieldtune import datasets, planning, tasks
from fieldtune.config import Accelerator, Config, HardwareConfig, Packing, Precision
from fieldtune.data.encode import Encoder
from fieldtune.data.load import Rows, account, load_split
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.models.adapters import parameter_counts
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.packable import must_pack_exactly
from fieldtune.models.run_model import start_model
from fieldtune.tracking import Tracker
from fieldtune.training.module import FineTuning
from fieldtune.training.results import save_results
from fieldtune.training.state_files import StateFiles
from fieldtune.training.watch import CHECKPOINTS, LAST, Watch, load_best

log = logging.getLogger("fieldtune")

PRECISIONS = {Precision.fp32: "32-true", Precision.bf16: "bf16-mixed", Precision.fp16: "16-mixed"}


def train(config: Config, run_dir: Path, tracker: Tracker) -> Mapping[str, Any]:
    """Train; returns the facts for the run's manifest."""
    dataset = _verified(config)
    tracker.uses(f"{config.data.task}-data", "dataset", {"fingerprint": dataset.fingerprint})
    use_threads(config.hardware)
    model, tokenizer = start_model(config)
    encoder = Encoder(tokenizer, config.model.template)
    rows, val = _rows(config, dataset, encoder)
    schedule = Schedule(
        rows=len(rows.encoded),
        micro_batch_size=config.trainer.micro_batch_size,
        accumulation=config.trainer.accumulation,
        seed=config.seed,
        max_epochs=config.trainer.max_epochs,
        max_steps=config.trainer.max_steps,
    )
    if config.trainer.warmup_steps >= schedule.total_steps:
        raise UserError(
            f"trainer.warmup_steps={config.trainer.warmup_steps} leaves no step of {schedule.total_steps}; give fewer"
        )
    parameters, trainable = parameter_counts(model)
    log.info("%s: %s parameters, %s trained", config.model.name, f"{parameters:,}", f"{trainable:,}")
    log.info(
        "%s optimizer steps of %d rows",
        f"{schedule.total_steps:,}",
        config.trainer.micro_batch_size * config.trainer.accumulation,
    )
    network = LanguageModelLoss(model)
    if config.trainer.packing is not Packing.none:
        must_pack_exactly(network, rows.encoded, config.model.context_length)
    module = FineTuning(network, config.trainer, config.hardware.precision, schedule.total_steps)
    watch = Watch(run_dir, config.trainer, schedule, val, encoder, tracker)
    windows = Windows(rows.encoded, schedule, config.trainer.packing, tokenizer.pad_id)
    log.info("%s", planning.line(config, model, windows, val.encoded))
    _fit(config, run_dir, module, watch, windows)
    load_best(run_dir, module)
    files = save_results(config, run_dir, model, tokenizer, tasks.get(config.data.task).result_name())
    kept = watch.best_step if watch.val.encoded else watch.last_step
    log.info("kept the weights of step %d; results in %s", kept, run_dir)
    tracker.artifact(f"{config.name}-model", "model", [run_dir / name for name in files], {"step": kept})
    return {
        "data": {"fingerprint": dataset.fingerprint, "rows": dataset.rows, "folder": str(dataset.folder)},
        "supervised": {"train": account(rows), "val": account(val)},
        "left_out": {"train": rows.left_out, "val": val.left_out},
        "model": {
            "name": config.model.name,
            "weights": config.model.weights,
            "adapter": config.adapter.kind.name,
            "template": config.model.template.name,
            "tokenizer": config.model.tokenizer.name,
            "parameters": parameters,
            "trainable_parameters": trainable,
        },
        "steps": {"planned": schedule.total_steps, "done": watch.last_step, "kept": kept, **watch.facts()},
        "metrics": watch.summary(),
        "files": files,
    }


def _verified(config: Config) -> Dataset:
    dataset = datasets.find(config)
    if dataset is None:
        raise UserError("the data set of this configuration is not prepared; run prepare.py with the same words first")
    dataset.verify()
    return dataset


def _rows(config: Config, dataset: Dataset, encoder: Encoder) -> tuple[Rows, Rows]:
    prompt, length = config.data.train_on_prompt, config.model.context_length
    rows = load_split(dataset, "train", encoder, length, train_on_prompt=prompt)
    val = load_split(dataset, "val", encoder, length, rows=config.trainer.eval_rows, train_on_prompt=prompt)
    return rows, val


def use_threads(hardware: HardwareConfig) -> None:
    """CPU threads of this process: those asked for, else one a core that it may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(hardware.threads or allowed)


def _fit(config: Config, run_dir: Path, module: FineTuning, watch: Watch, windows: Windows) -> None:
    checkpoint = run_dir / CHECKPOINTS / LAST
    for noisy in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    trainer = pl.Trainer(
        accelerator="gpu" if config.hardware.accelerator is Accelerator.gpu else "cpu",
        devices=1,
        precision=PRECISIONS[config.hardware.precision],
        max_epochs=1,  # one pass over all optimizer steps; our epochs are inside (see `Schedule`)
        callbacks=[watch],
        plugins=[StateFiles()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.train()
    resumed = checkpoint if checkpoint.exists() else None
    if resumed:
        log.info("going on from %s", resumed)
    trainer.fit(module, windows, ckpt_path=resumed, weights_only=True if resumed else None)
