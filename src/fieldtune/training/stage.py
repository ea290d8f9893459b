"""The train stage: a data set and a model in, a tuned model and its curves out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fieldtune import datasets, planning, ranks, stopping, tasks
from fieldtune.config import Config, HardwareConfig, Packing
from fieldtune.data.batches import moved
from fieldtune.data.broken_media import BrokenRows
from fieldtune.data.encode import Encoder
from fieldtune.data.load import Rows, account, load_split
from fieldtune.data.media import idle_media
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.half_precision import fp16_problem
from fieldtune.models.adapters import parameter_counts
from fieldtune.models.keeping import keep_media, set_towers_apart
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.packable import must_pack_exactly, must_score_exactly
from fieldtune.models.recompute import recompute_layers
from fieldtune.models.run_model import start_model
from fieldtune.models.vision import must_look_alike
from fieldtune.tracking import Tracker
from fieldtune.training.checkpoints import BEST, CHECKPOINTS, Checkpoints
from fieldtune.training.module import FineTuning
from fieldtune.training.packing_record import PackingTrial, packing_record
from fieldtune.training.results import save_results
from fieldtune.training.strategies import make_team, make_trainer, must_gather, replicas
from fieldtune.training.team import Team
from fieldtune.training.watch import Watch, load_best

log = logging.getLogger("fieldtune")


def train(config: Config, run_dir: Path, tracker: Tracker) -> Mapping[str, Any]:
    """Train; returns the facts for the run's manifest."""
    dataset = datasets.prepared(config)
    dataset.verify()
    tracker.uses(f"{config.data.task}-data", "dataset", {"fingerprint": dataset.fingerprint})
    team = make_team(config.hardware)
    use_threads(config.hardware)
    model, encoder = start_model(config)
    tokenizer = encoder.tokenizer
    must_gather(unwrapped(model), config.hardware.strategy)
    overflow = fp16_problem(unwrapped(model).config.model_type, config)
    if overflow is not None:  # of a family that only the files could tell
        raise UserError(overflow)
    rows, val = _rows(config, dataset, encoder)
    kept_media = keep_media(config, model, encoder.reader)
    if kept_media is not None:
        rows, val = kept_media.filled([rows, val], team.rank, config.hardware.accelerator)
    schedule = _schedule(config, rows, team)
    counts = parameter_counts(model)
    log.info("%s: %s parameters, %s trained", config.model.name, *(f"{count:,}" for count in counts))
    log.info("%s optimizer steps of %d rows", f"{schedule.total_steps:,}", schedule.step_rows)
    if team.rank.number:  # the ranks' dropout must not be the same
        torch.manual_seed(config.seed + team.rank.number)
    broken = BrokenRows(train=rows, val=val)
    network = _network(config, model, rows, val, team, broken)
    module = FineTuning(network, config.trainer, config.hardware.precision, schedule.total_steps, team, config.adapter)
    checkpoints = Checkpoints(run_dir, config.trainer.keep_checkpoints, writes=team.rank.writes)
    watch = Watch(checkpoints, config.trainer, schedule, val, encoder, tracker, broken)
    windows = Windows(
        rows.encoded,
        schedule,
        config.trainer.packing,
        tokenizer.pad_id,
        rank=team.rank.number,
        world_size=team.rank.world_size,
        trunk=team.keeps_trunk,
        broken=broken,
    )
    if team.rank.writes:
        log.info("%s", planning.line(config, model, windows, val.encoded))
    trial = PackingTrial(windows, config.trainer.packing_trial)
    if team.shares_samples:
        set_towers_apart(model, encoder.reader, team.device)
    _fit(config, checkpoints, module, watch, windows, trial)
    skipped = module.skipped_steps
    if team.shares_samples:
        model, module = _whole_model(config, module, run_dir)
    if not team.rank.writes:
        return {}
    load_best(run_dir, module)
    files = save_results(config, run_dir, model, encoder, tasks.get(config.data.task).result_name())
    kept = watch.best_step if watch.val.encoded else watch.last_step
    log.info("kept the weights of step %d; results in %s", kept, run_dir)
    tracker.artifact(f"{config.name}-model", "model", [run_dir / name for name in files], {"step": kept})
    return {
        "data": {"fingerprint": dataset.fingerprint, "rows": dataset.rows, "folder": str(dataset.folder)},
        "supervised": {"train": account(rows), "val": account(val)},
        "left_out": {"train": broken.left_out("train"), "val": broken.left_out("val")},
        "model": _model_facts(config, *counts),
        "steps": {
            "planned": schedule.total_steps,
            "done": watch.last_step,
            "kept": kept,
            "skipped": skipped,
            **watch.facts(),
        },
        "packing": packing_record(windows, trial),
        **({"media_cache": kept_media.facts()} if kept_media is not None else {}),
        "metrics": watch.summary(),
        "files": files,
    }


def _schedule(config: Config, rows: Rows, team: Team) -> Schedule:
    schedule = Schedule.of(config, len(rows.encoded), replicas(config.hardware, team))
    if config.trainer.warmup_steps >= schedule.total_steps:
        raise UserError(
            f"trainer.warmup_steps={config.trainer.warmup_steps} leaves no step of {schedule.total_steps}; give fewer"
        )
    return schedule


def _network(config: Config, model: Any, rows: Rows, val: Rows, team: Team, broken: BrokenRows) -> LanguageModelLoss:
    """What computes the loss. A model that would compute another one in packs than row by row is refused."""
    # Layers whose weights are shared out are called as they are: that is when their weights are put together.
    network = LanguageModelLoss(model, fused=not team.shares_samples)
    if team.shares_samples:
        shown = [one for part in (rows, val) for row in part.encoded for one in row.media]
        must_look_alike(shown)
        network.idle_media = moved(idle_media(shown), team.device)
    if config.trainer.activation_checkpointing:
        recompute_layers(model)
    if config.trainer.packing is not Packing.none:
        broken.readable(rows.encoded, lambda some: must_pack_exactly(network, some, config.model.context_length))
    elif not team.shares_samples:  # a rank that has a part of the weights answers only with the others
        broken.readable(rows.encoded, lambda some: must_score_exactly(network, some))
    return network


def _model_facts(config: Config, parameters: int, trainable: int) -> dict[str, Any]:
    return {
        "name": config.model.name,
        "weights": config.model.weights,
        "adapter": config.adapter.kind.name,
        "template": config.model.template.name,
        "tokenizer": config.model.tokenizer.name,
        "parameters": parameters,
        "trainable_parameters": trainable,
    }


def _whole_model(config: Config, module: FineTuning, run_dir: Path) -> tuple[Any, FineTuning]:
    """No rank has a whole model where weights are shared out: results are made of one that is built anew."""
    trained = module.final_state
    if not trained and not (run_dir / CHECKPOINTS / BEST).exists():  # gone on with after the last step
        trained = module.trained_state()
    if not module.team.rank.writes:
        return None, module
    model, _ = start_model(config)
    module = FineTuning(LanguageModelLoss(model), config.trainer, config.hardware.precision, 0)
    module.network.load_state_dict(trained, strict=False)
    return model, module


def _rows(config: Config, dataset: Dataset, encoder: Encoder) -> tuple[Rows, Rows]:
    prompt, length = config.data.train_on_prompt, config.model.context_length
    rows = load_split(dataset, "train", encoder, length, train_on_prompt=prompt)
    val = load_split(dataset, "val", encoder, length, rows=config.trainer.eval_rows, train_on_prompt=prompt)
    return rows, val


def use_threads(hardware: HardwareConfig) -> None:
    """CPU threads of this process: those asked for, else one a core that it may run on, shared with its neighbors."""
    torch.set_num_threads(hardware.threads or max(1, ranks.cores() // ranks.this_rank().local_world_size))


def _fit(
    config: Config, checkpoints: Checkpoints, module: FineTuning, watch: Watch, windows: Windows, trial: PackingTrial
) -> None:
    trainer = make_trainer(config, module.team, watch, checkpoints.files, trial)
    module.train()
    resumed = checkpoints.resume()
    if resumed:
        log.info("going on from %s", resumed.parent)
    with stopping.finishing():
        trainer.fit(module, windows, ckpt_path=resumed, weights_only=True if resumed else None)
