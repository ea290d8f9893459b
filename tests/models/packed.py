"""The small models of the families, packed into 4 bits with an adapter that is not at its start, or not packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fieldtune.config import AdapterConfig, AdapterKind, Family, ModelConfig, TemplateKind, TokenizerKind
from fieldtune.models.adapters import adapt
from fieldtune.models.quantized import Packed
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.weights import Source, build

QLORA = AdapterConfig(kind=AdapterKind.qlora, rank=4, alpha=8.0, bits=4)
FAMILIES = ["mistral", "gemma", "gemma2"]


def tiny_config(name: str) -> ModelConfig:
    return ModelConfig(
        name=f"{name}_tiny",
        family=Family.causal_lm,
        weights=f"tiny:{name}",
        tokenizer=TokenizerKind.from_weights,
        template=TemplateKind.chat,
        size="tiny",
    )


def tiny(name: str, cache: Path) -> Any:
    """In fp32, with embeddings that are large enough for soft caps to matter."""
    return _louder(build(tiny_config(name), Source(ensure_tiny(name, cache))))


def packed(name: str, cache: Path, compute: torch.dtype = torch.float32, *, double: bool = True) -> Any:
    packing = Packed(compute, double, torch.float32, "cpu")
    torch.manual_seed(1)
    model = adapt(_louder(build(tiny_config(name), Source(ensure_tiny(name, cache)), packing)), QLORA)
    for part, parameter in model.named_parameters():
        if "lora_B" in part:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def _louder(model: Any) -> Any:
    model.get_output_embeddings().weight.data.mul_(20)
    return model
