"""A base whose linear layers are held in 4 bits (NF4 with double quantization, arXiv 2305.14314), by bitsandbytes.

A layer's weights are packed as its file is read, so that the whole model in 16 bits is never there. They are unpacked
where they are multiplied, forth and back, and never change: only adapters on them are trained.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fieldtune import ranks
from fieldtune.config import Accelerator, AdapterConfig, AdapterKind, Config, HardwareConfig, Precision
from fieldtune.errors import UserError
from fieldtune.models.vision_parts import Parts

# It asks for a package of kernels whenever it is imported, by PEFT too; what goes wrong it raises.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

DTYPES = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


@dataclass(frozen=True, slots=True)
class Packed:
    """How a base is held in 4 bits. compute: what unpacked weights are multiplied in. rest: the format of what is not
    in a linear layer: embeddings, norms, the output head. device: where it is packed and stays."""

    compute: torch.dtype
    double: bool
    rest: torch.dtype
    device: str

    def loading(self, parts: Parts | None = None) -> dict[str, Any]:
        """What `from_pretrained` is given. parts: of a model that sees, of which the language model alone is packed."""
        from transformers import BitsAndBytesConfig

        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=self.double,
            bnb_4bit_compute_dtype=self.compute,
            llm_int8_skip_modules=["lm_head", *parts.vision, *parts.projector] if parts else None,
        )
        return {"quantization_config": settings, "dtype": self.rest, "device_map": {"": self.device}}


def packed(config: Config) -> Packed | None:
    """How the base of this configuration is packed; None: it is not. `UserError` where the GPU cannot compute so."""
    return _packed(config.adapter, config.hardware) if config.adapter.kind is AdapterKind.qlora else None


def _packed(adapter: AdapterConfig, hardware: HardwareConfig) -> Packed:
    on_gpu = hardware.accelerator is Accelerator.gpu
    if on_gpu and adapter.compute is Precision.bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"adapter.compute=bf16: {torch.cuda.get_device_name()} has no bf16; "
            "give adapter.compute=fp16 hardware.precision=fp16"
        )
    device = f"cuda:{ranks.this_rank().local}" if on_gpu else "cpu"
    return Packed(DTYPES[adapter.compute], adapter.double_quantization, DTYPES[hardware.precision], device)


def settle(model: nn.Module) -> None:
    """Keep packed weights as they are.

    On processors with AVX512-BF16 bitsandbytes lays them out anew, and rounds their scales, once the model answers
    something: the base would not be the one that the adapter was trained on, and could not be trained on again.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def make_optimizer(parameters: list[Any], **settings: Any) -> torch.optim.Optimizer:
    """AdamW with both moments in 8 bits; on a GPU they are paged out to the host's memory when there is no room."""
    from bitsandbytes.optim import PagedAdamW8bit

    # On the CPU there is nothing to be paged out, and it says so at each weight.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    optimizer: torch.optim.Optimizer = PagedAdamW8bit(parameters, **settings)
    return optimizer


def numbers(parameter: Any) -> int:
    """How many numbers a parameter holds: two to a byte, if it is packed."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else int(parameter.numel())
