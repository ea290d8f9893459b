"""Families that fp16 cannot hold, told from the configuration where it says enough: no torch, no weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fieldtune.config import AdapterKind, Config, ModelConfig, Precision

FP16_OVERFLOWS = ("gemma", "t5")  # families whose activations leave fp16's range


def fp16_problem(family: str, config: Config) -> str | None:
    """What is wrong with training or answering in fp16 by a model of this family (transformers' `model_type`)."""
    if not family.startswith(FP16_OVERFLOWS):
        return None
    packed = config.adapter.kind is AdapterKind.qlora and config.adapter.compute is Precision.fp16
    given = {
        "hardware.precision=fp16": config.hardware.precision is Precision.fp16,
        "adapter.compute=fp16": packed,
    }
    wrong = [key for key, is_fp16 in given.items() if is_fp16]
    if not wrong:
        return None
    keys = " ".join(key.replace("fp16", "bf16") for key in wrong)
    return f"{' and '.join(wrong)}: {family} models overflow in fp16; give {keys}, or fp32 on a GPU without bf16"


def family_of(model: ModelConfig) -> str:
    """The family as far as the configuration tells: a tiny model's, that of a folder's config.json, or a Gemma by its
    name on the hub. Empty if only the files can tell."""
    kind, _, rest = model.weights.partition(":")
    if kind == "tiny":
        return rest
    if kind == "folder":
        return _said_by(Path(rest) / "config.json")
    if kind == "hub" and (found := re.match(r"[a-z]*(gemma)", rest.lower().rpartition("/")[2])):
        return found[1]
    return ""


def _said_by(path: Path) -> str:
    """A broken or missing file is reported by whoever loads the model."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(settings.get("model_type", "")) if isinstance(settings, dict) else ""
