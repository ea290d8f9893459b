"""Adapters: low-rank updates on frozen weights (LoRA, arXiv 2106.09685), by PEFT."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from fieldtune.config import AdapterConfig, AdapterKind, TrainerConfig, VisionPart
from fieldtune.errors import UserError
from fieldtune.models.loss import unwrapped
from fieldtune.models.quantized import numbers
from fieldtune.models.vision_parts import part_named, parts_of, train_parts


def adapt(model: Any, adapter: AdapterConfig) -> Any:
    """The model with the parts that are trained: itself, or wrapped with adapters and its own weights frozen.

    Projector and vision tower of a model that sees are trained as `adapter.projector` and `adapter.vision` say.
    """
    adapted = model if adapter.kind is AdapterKind.none else _with_lora(model, adapter)
    if parts_of(model) is not None:
        train_parts(model, adapter.projector, adapter.vision)
    return adapted


def _with_lora(model: Any, adapter: AdapterConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=_targets(model, adapter),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if hasattr(part, "weight")})
        reason = str(error).splitlines()[0]
        raise UserError(f"adapter.targets={adapter.targets}: {reason}; layers there are: {', '.join(linear)}") from None


def _targets(model: Any, adapter: AdapterConfig) -> Any:
    """What PEFT is told: names of layers, or a pattern of them where parts of the model get no adapter."""
    parts = parts_of(model)
    if parts is None:
        return adapter.targets or "all-linear"
    wanted = {
        "language": True,
        "projector": adapter.projector is VisionPart.lora,
        "vision": adapter.vision is VisionPart.lora,
    }
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not model.get_output_embeddings()
        and wanted[part_named(parts, name)]
        and name.rpartition(".")[2] not in parts.unadapted
    ]
    if adapter.targets:  # they are the language model's
        language = {name.rpartition(".")[2] for name in names if part_named(parts, name) == "language"}
        unknown = sorted(set(adapter.targets) - language)
        if unknown:
            raise UserError(
                f"adapter.targets={adapter.targets}: the language model has no {', '.join(unknown)}; "
                f"layers there are: {', '.join(sorted(language))}"
            )
        chosen = set(adapter.targets)
        names = [n for n in names if part_named(parts, n) != "language" or n.rpartition(".")[2] in chosen]
    return "|".join(sorted({re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for name in names}))


def learning_rates(network: Any, trainer: TrainerConfig, adapter: AdapterConfig) -> dict[float, list[Any]]:
    """The trained parameters of a network by their learning rate, that of the language model first."""
    model = unwrapped(network.model)
    parts = parts_of(model)
    rates = {"projector": adapter.projector_learning_rate, "vision": adapter.vision_learning_rate}
    known = {id(one): name for name, one in model.named_parameters()}
    found: dict[float, list[Any]] = {trainer.learning_rate: []}
    for parameter in network.parameters():
        if parameter.requires_grad:
            part = part_named(parts, known[id(parameter)]) if parts else "language"
            rate = rates.get(part) or trainer.learning_rate
            found.setdefault(rate, []).append(parameter)
    return {rate: those for rate, those in found.items() if those}


def parameter_counts(model: Any) -> tuple[int, int]:
    """(all, trainable) parameters; weights shared by two layers count once, packed ones as what they stand for."""
    parameters = list(model.parameters())
    return sum(map(numbers, parameters)), sum(p.numel() for p in parameters if p.requires_grad)
