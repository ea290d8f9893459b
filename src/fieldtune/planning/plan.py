"""A plan: memory by part, steps, tokens, time and money of a configuration, before its model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldtune.config import (
    Accelerator,
    AdapterConfig,
    AdapterKind,
    Config,
    Family,
    OptimizerKind,
    Packing,
    Precision,
    TokenizerKind,
    to_mapping,
)
from fieldtune.models.looking_outline import held_looking
from fieldtune.models.outline import Counts, counts, held_by, outline
from fieldtune.models.quantized import DTYPES
from fieldtune.models.weights import Source, architecture, resolve
from fieldtune.planning.machine import Machine
from fieldtune.planning.memory import (
    FP32,
    NF4,
    NF4_DOUBLE,
    STATE,
    STATE_8BIT,
    Answering,
    Memory,
    answering_memory,
    training_memory,
)
from fieldtune.planning.work import Work, picture_bytes, work_of_config
from fieldtune.runs import list_runs

STEP_KEYS = ("micro_batch_size", "accumulation", "packing", "activation_checkpointing", "optimizer")

AT_ONCE = 2  # windows whose pixels are held: the next one's are made while one is computed


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: None if no rate is known; rests_on says what it comes from."""

    config: Config
    counts: Counts
    work: Work
    memory: Memory
    answering: Answering
    machine: Machine
    seconds: float | None
    rests_on: str

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.machine.memory


def plan(config: Config, machine: Machine) -> Plan:
    """The plan of a configuration on a machine. Of the weights' files only config.json and the tokenizer are read.

    A GPT-2's shape and tokenizer need none of them; those of a model of the hub are brought here, its weights are not.
    """
    source = Source(None) if _needs_no_files(config) else resolve(config.model, config, with_weights=False)
    settings = architecture(config.model, source)
    counted = counts(outline(settings, config.adapter))
    work = work_of_config(config, source, counted.vocabulary)
    memory = step_memory(config, settings, counted, work)
    seconds, rests_on = _time(config, counted, work, machine)
    return Plan(config, counted, work, memory, _answering(config, counted, work), machine, seconds, rests_on)


def step_memory(config: Config, settings: Any, counted: Counts, work: Work) -> Memory:
    """The peak of training on one device, of transformers' `settings` and the largest window of the work."""
    gpu = config.hardware.accelerator is Accelerator.gpu
    trainer, half = config.trainer, config.hardware.precision is not Precision.fp32
    bits = weight_bits(config.adapter)
    held = held_by(
        settings,
        config.adapter,
        config.hardware.precision,
        work.heaviest,
        DTYPES[config.hardware.precision if bits < 16 else Precision.fp32],
        recompute=trainer.activation_checkpointing,
    )
    if gpu and config.trainer.packing is not Packing.none:
        held = {phase: _with_masks(parts, config, counted, work) for phase, parts in held.items()}
    seen = AT_ONCE * picture_bytes(work.heaviest)
    if seen:
        held = {phase: {**parts, "workspace": parts.get("workspace", 0) + seen} for phase, parts in held.items()}
    held["optimizer"] = {"gradients": FP32 * counted.trainable}
    if config.hardware.precision is Precision.fp16:  # AdamW step by step, not fused, for the loss is scaled
        held["optimizer"]["workspace"] = FP32 * counted.trainable
    file_bytes = _read_beside(config, settings) * counted.parameters
    return training_memory(
        counted,
        held.values(),
        gpu=gpu,
        file_bytes=file_bytes if bits >= 16 else 0,  # packed as they are read
        looking=held_looking(settings, work.looked_before) if work.looked_before else 0,
        bits=bits,
        rest=2 if half else FP32,
        state=STATE_8BIT if trainer.optimizer is OptimizerKind.paged_adamw_8bit else STATE,
    )


def weight_bits(adapter: AdapterConfig) -> float:
    """Of a frozen weight of a linear layer, its share of the scales included."""
    if adapter.kind is not AdapterKind.qlora:
        return 32
    return NF4_DOUBLE if adapter.double_quantization else NF4


def _needs_no_files(config: Config) -> bool:
    return config.model.family is Family.gpt2 and config.model.tokenizer is TokenizerKind.gpt2_bpe


def _read_beside(config: Config, settings: Any) -> int:
    """Bytes a parameter that stand in memory beside the fp32 weights while these are made of their files."""
    if config.model.weights.startswith("openai:"):
        return FP32  # every tensor is read before the model is there
    half = ("torch.bfloat16", "torch.float16")
    return 2 if str(getattr(settings, "dtype", None)) in half else 0  # fp32 files are mapped, not copied


def _with_masks(parts: Mapping[str, int], config: Config, counted: Counts, work: Work) -> dict[str, int]:
    """On a GPU packed attention has a mask, kept by each layer: token by token, in the number format of training."""
    largest = max(batch["ids"].numel() for batch in work.heaviest["micro_batches"])
    size = 4 if config.hardware.precision is Precision.fp32 else 2
    layers = 1 if config.trainer.activation_checkpointing else counted.layers
    masks = layers * largest * largest * size
    return {**parts, "activations": parts.get("activations", 0) + (masks if parts.get("activations") else 0)}


def _answering(config: Config, counted: Counts, work: Work) -> Answering:
    tokens = min(config.model.context_length, work.prompt + config.evaluation.max_new_tokens)
    gpu = config.hardware.accelerator is Accelerator.gpu
    half = config.hardware.precision is not Precision.fp32
    return answering_memory(
        counted, config.evaluation.batch_size, tokens, gpu=gpu, half=half, bits=weight_bits(config.adapter)
    )


def operations(counted: Counts, work: Work, *, recompute: bool = False) -> float:
    """Floating-point operations of a run's matrix products, evaluations included, samples not.

    A token costs two a parameter forward, two for its input's gradient, and two for the gradient of a trained
    parameter (arXiv 2001.08361). The head sees the tokens with a label only. A picture's patch costs the same of vision
    tower and projector; pictures of evaluations are not counted.
    recompute: layers are passed forward twice (activation checkpointing).
    """
    trained = counted.trainable - counted.seeing_trained
    frozen = trained < counted.in_layers
    attention = 2 * counted.layers * counted.width * work.length  # two products with half of the row, on average
    a_token = 2 * counted.in_layers + attention
    a_label = 2 * counted.head
    backward = 1 if frozen else 2
    extra = 2 * trained if frozen else 0
    passes = 1 + backward + int(recompute)
    training = work.computed * (passes * a_token + extra) + work.supervised * (1 + backward) * a_label
    training += work.numbers / counted.patch * (2 * counted.seeing + 4 * counted.seeing_trained)
    share = work.supervised / max(1, work.tokens)
    return float(training + work.evaluations * work.val_tokens * (a_token + share * a_label))


def _time(config: Config, counted: Counts, work: Work, machine: Machine) -> tuple[float | None, str]:
    step = measured_step(config)
    if step is not None and machine.says_rate and config.hardware.accelerator is Accelerator.cpu:
        seconds, folder = step
        return seconds * work.steps, f"{seconds:.3g} s a step measured in {folder}, evaluations not counted"
    if machine.rate is None:
        return None, machine.says_rate
    recompute = config.trainer.activation_checkpointing
    return operations(counted, work, recompute=recompute) / machine.rate, machine.says_rate


def measured_step(config: Config) -> tuple[float, Path] | None:
    """Seconds of an optimizer step in the newest finished run of the same work, and its folder."""
    wanted = _what_a_step_does(to_mapping(config))
    for run in reversed(list_runs(Path(config.output_dir))):
        if run.stage == "train" and run.status == "finished" and _what_a_step_does(run.config()) == wanted:
            steps = run.manifest()["steps"]
            if steps.get("done") and steps.get("seconds"):
                return steps["seconds"] / steps["done"], run.folder
    return None


def _what_a_step_does(config: Mapping[str, Any]) -> dict[str, Any]:
    trainer = {name: config["trainer"].get(name) for name in STEP_KEYS}
    return {"trainer": trainer, **{name: config[name] for name in ("data", "model", "adapter", "hardware")}}
