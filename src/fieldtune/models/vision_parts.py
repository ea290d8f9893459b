"""The parts of a model that sees: its vision tower, its projector, its language model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fieldtune.config import VisionPart
from fieldtune.errors import UserError

WHOLE = {"projector": "projector.safetensors", "vision": "vision.safetensors"}  # files beside a saved adapter


@dataclass(frozen=True, slots=True)
class Parts:
    """Names of modules or parameters of a family. What is in the projector counts as that, wherever it lies.

    unadapted: last names of layers that are not called as layers, so that an adapter on them would do nothing. opened:
    modules of the vision tower in which layers use weights of others.
    """

    language: str
    projector: tuple[str, ...]
    vision: tuple[str, ...]
    unadapted: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()


_LLAVA = Parts("model.language_model", ("model.multi_modal_projector", "model.image_newline"), ("model.vision_tower",))
_SMOLVLM = Parts("model.text_model", ("model.connector",), ("model.vision_model",))
_QWEN = Parts("model.language_model", ("model.visual.merger",), ("model.visual",))
_MOBILE_VIDEOGPT = Parts(
    "language_model.model",
    ("image_projector", "video_projector"),
    ("image_tower", "video_tower"),
    ("dt_proj", "dt_proj_b", "head"),
    ("video_tower",),
)
PARTS: dict[str, Parts] = {
    "llava": _LLAVA,
    "llava_next": _LLAVA,
    "llava_onevision": _LLAVA,
    "smolvlm": _SMOLVLM,
    "idefics3": _SMOLVLM,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "MobileVideoGPT_qwen": _MOBILE_VIDEOGPT,
}


def parts_of(inner: Any) -> Parts | None:
    """The parts of a model of transformers; None if it does not see."""
    return PARTS.get(inner.config.model_type)


def text_body(inner: Any) -> Any:
    """The language model without its output head."""
    parts = parts_of(inner)
    return inner.get_submodule(parts.language) if parts else getattr(inner, inner.base_model_prefix)


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a module or parameter of this name lies in one of the modules."""
    return any(name == one or name.startswith(one + ".") for one in prefixes)


def part_named(parts: Parts, name: str) -> str:
    """`projector`, `vision` or `language`: where a parameter of the model of transformers belongs."""
    if within(name, parts.projector):
        return "projector"
    return "vision" if within(name, parts.vision) else "language"


def parameters_in(inner: Any, part: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of a part of a model that sees."""
    parts = parts_of(inner)
    assert parts is not None
    for name, parameter in inner.named_parameters():
        if part_named(parts, name) == part:
            yield name, parameter


def towers_of(inner: Any) -> list[nn.Module]:
    """The modules of a model's vision tower; Qwen2-VL's has its projector too."""
    parts = parts_of(inner)
    return [inner.get_submodule(name) for name in parts.vision] if parts else []


def projector_of(inner: Any) -> nn.Module:
    """The module that takes what the vision tower of one of transformers' families gives."""
    name: str = PARTS[inner.config.model_type].projector[0]
    module: nn.Module = inner.get_submodule(name)
    return module


def lone_parameters(inner: Any) -> list[str]:
    """Names of parameters that are used where their own layer is not called: LLaVA 1.6's newline, and VideoMamba's if
    it is trained (see `keeping.set_towers_apart`)."""
    parts = parts_of(inner)
    if parts is None:
        return []
    opened = parts.opened if any(one.requires_grad for _, one in parameters_in(inner, "vision")) else ()
    return [name for name, _ in inner.named_parameters() if name in parts.projector or within(name, opened)]


def whole_parts(inner: Any) -> dict[str, dict[str, nn.Parameter]]:
    """Of projector and vision tower, those that are trained whole, by the names that transformers gives."""
    if parts_of(inner) is None:
        return {}
    found = {part: dict(parameters_in(inner, part)) for part in WHOLE}
    return {
        part: parameters
        for part, parameters in found.items()
        if not any("lora_" in name for name in parameters) and all(one.requires_grad for one in parameters.values())
    }


def save_whole_parts(inner: Any, folder: Path) -> list[str]:
    """Write the parts that are trained whole, a file each, beside an adapter; returns the files' names."""
    written = []
    for part, parameters in whole_parts(inner).items():
        save_file(
            {name: one.detach().cpu().contiguous() for name, one in parameters.items()}, str(folder / WHOLE[part])
        )
        written.append(WHOLE[part])
    return written


def read_whole_parts(inner: Any, folder: Path) -> dict[str, Tensor]:
    """Put the parts that lie beside an adapter into the model; `UserError` unless every weight of a part is there and
    none else. Returns the weights that were there before."""
    before: dict[str, Tensor] = {}
    for part, file in WHOLE.items():
        if (folder / file).exists():
            before |= read_part(inner, part, folder / file)
    return before


def read_part(inner: Any, part: str, path: Path) -> dict[str, Tensor]:
    """Put one part's file into the model, as `read_whole_parts` does; returns the weights that were there before."""
    try:
        state = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    there = dict(parameters_in(inner, part)) if parts_of(inner) else {}
    wrong = sorted(state.keys() ^ there.keys()) or [n for n in state if state[n].shape != there[n].shape]
    if wrong:
        raise UserError(f"{path} does not fit the model's {part} ({', '.join(wrong[:5])})")
    before = {name: there[name].detach().clone() for name in state}
    put(inner, state)
    return before


@torch.no_grad()
def put(inner: Any, state: dict[str, Tensor]) -> None:
    """Copy weights into a model, by name."""
    for name, value in state.items():
        inner.get_parameter(name).copy_(value)


def train_parts(inner: Any, projector: VisionPart, vision: VisionPart) -> None:
    """Train projector and tower whole, or leave their own weights as they are."""
    for part, wanted in (("projector", projector), ("vision", vision)):
        for name, parameter in parameters_in(inner, part):
            if "lora_" not in name:
                parameter.requires_grad_(wanted is VisionPart.full)


def in_fp32(inner: Any) -> None:
    """Hold projector and tower in fp32 beside a packed language model: small steps would be lost in 16 bits."""
    for part in WHOLE:
        for _, parameter in parameters_in(inner, part):
            parameter.data = parameter.data.float()
