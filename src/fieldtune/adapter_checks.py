"""Which adapters go with which model, hardware and optimizer: the part of `fieldtune.checks` that asks for packages.

No torch here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from fieldtune.config import (
    Accelerator,
    AdapterConfig,
    AdapterKind,
    Config,
    Family,
    OptimizerKind,
    Precision,
    Strategy,
    TemplateKind,
    VisionPart,
)


def adapter_problems(config: Config) -> Iterator[str]:
    """What is wrong with the adapter, and with the parts of a model that sees, a line each."""
    yield from _quantized(config)
    yield from _seeing(config)


def _seeing(config: Config) -> Iterator[str]:
    """Vision tower and projector: what can be done with them, and with a model that has none."""
    adapter, family, start = config.adapter, config.model.family, config.model.projector
    if family is not Family.vision_language:
        default = AdapterConfig()
        for key in ("projector", "projector_learning_rate", "vision", "vision_learning_rate"):
            given = getattr(adapter, key)
            if given != getattr(default, key):
                shown = given.name if isinstance(given, VisionPart) else f"{given:g}"
                yield f"adapter.{key}={shown} is for models that see; leave it out with model={config.model.name}"
        if start is not None:
            yield f"model.projector={start} is for models that see; leave it out with model={config.model.name}"
        if config.model.frames is not None:
            yield f"model.frames={config.model.frames} is for models that see; leave it out with {config.model.name}"
        return
    if start is not None and config.model.weights.startswith("run:"):
        yield f"model.projector={start} with model.weights={config.model.weights}, which has its own; leave it out"
    elif start is not None and not Path(start).is_file():
        yield f"model.projector={start} does not exist; give the path of a projector.safetensors"
    for key in ("projector", "vision"):
        part: VisionPart = getattr(adapter, key)
        if part is VisionPart.lora and adapter.kind is AdapterKind.none:
            yield f"adapter.{key}=lora needs adapter=lora or qlora (got none); give adapter.{key}=full or frozen"
        if part is VisionPart.frozen and getattr(adapter, f"{key}_learning_rate") is not None:
            yield f"adapter.{key}_learning_rate is given, and adapter.{key}=frozen; give adapter.{key}=full, or lora"
    if config.model.template is not TemplateKind.chat:
        yield f"model.template={config.model.template.name} has no place for a picture; give model.template=chat"
    if config.hardware.strategy is Strategy.dp:
        yield "hardware.strategy=dp with a model that sees is not done here; give hardware.strategy=ddp, or single"
    if importlib.util.find_spec("PIL") is None:
        yield f"model={config.model.name} needs the package pillow; pip install 'fieldtune[video]'"


def _quantized(config: Config) -> Iterator[str]:
    """4-bit weights and 8-bit moments: with what they can be, and the packages that they need."""
    adapter, hardware, strategy = config.adapter, config.hardware, config.hardware.strategy
    small = config.trainer.optimizer is OptimizerKind.paged_adamw_8bit
    if adapter.kind is not AdapterKind.qlora:
        if adapter.bits is not None:
            yield f"adapter.bits={adapter.bits} needs adapter=qlora (got {adapter.kind.name})"
    else:
        if adapter.bits is None:
            yield "adapter=qlora needs adapter.bits=4 (got null)"
        if config.model.family is Family.gpt2:
            yield "adapter=qlora packs linear layers, which a GPT-2 has none of; give adapter=lora"
        if strategy not in (Strategy.single, Strategy.ddp):
            yield f"adapter=qlora with hardware.strategy={strategy.name}: packed weights cannot be shared out; give ddp"
        if adapter.compute is Precision.fp16 and hardware.accelerator is Accelerator.cpu:
            yield "adapter.compute=fp16 needs a GPU; give adapter.compute=bf16 or fp32 on the CPU"
        elif {adapter.compute, hardware.precision} == {Precision.fp16, Precision.bf16}:
            same = hardware.precision.name
            yield f"adapter.compute={adapter.compute.name} with hardware.precision={same}; give adapter.compute={same}"
    if small and strategy not in (Strategy.single, Strategy.dp, Strategy.ddp):
        yield (
            f"trainer.optimizer=paged_adamw_8bit with hardware.strategy={strategy.name}, which shares the optimizer's "
            "state out itself; give trainer.optimizer=adamw"
        )
    for package in ("bitsandbytes", "accelerate"):
        wanted = adapter.kind is AdapterKind.qlora or (small and package == "bitsandbytes")
        if wanted and importlib.util.find_spec(package) is None:
            what = "adapter=qlora" if adapter.kind is AdapterKind.qlora else "trainer.optimizer=paged_adamw_8bit"
            yield f"{what} needs the package {package}; pip install 'fieldtune[qlora]'"
