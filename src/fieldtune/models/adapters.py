"""Adapters: low-rank updates on frozen weights (LoRA, arXiv 2106.09685), by PEFT."""

from __future__ import annotations

from typing import Any

from fieldtune.config import AdapterConfig, AdapterKind
from fieldtune.errors import UserError
from fieldtune.models.quantized import numbers


def adapt(model: Any, adapter: AdapterConfig) -> Any:
    """The model with the parts that are trained: itself, or wrapped with adapters and its own weights frozen."""
    if adapter.kind is AdapterKind.none:
        return model
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets or "all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if hasattr(part, "weight")})
        reason = str(error).splitlines()[0]
        raise UserError(f"adapter.targets={adapter.targets}: {reason}; layers there are: {', '.join(linear)}") from None


def parameter_counts(model: Any) -> tuple[int, int]:
    """(all, trainable) parameters; weights shared by two layers count once, packed ones as what they stand for."""
    parameters = list(model.parameters())
    return sum(map(numbers, parameters)), sum(p.numel() for p in parameters if p.requires_grad)
