"""Rows with pictures: loss and gradients, the projector's included, are those of a plain loop, and a picture that
several questions are asked about is looked at once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fieldtune.config import AdapterConfig, AdapterKind, Packing, TrainerConfig, VisionPart
from fieldtune.data.batches import window_with_media
from fieldtune.data.encode import Encoded
from fieldtune.data.media import plain_inputs
from fieldtune.data.packing import pack_window
from fieldtune.data.trie import fewest_tokens
from fieldtune.models.adapters import adapt, learning_rates
from fieldtune.models.fused import FusedLlamaRMSNorm
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.vision_parts import part_named, parts_of
from tests.models.pictures import SEEING, rows_that_see, seeing, seeing_encoder
from tests.training.test_exact_loss import our_gradients

FULL = AdapterConfig(kind=AdapterKind.none, projector=VisionPart.full, vision=VisionPart.full)
PROJECTOR = re.compile("projector|connector|merger|image_newline")
LORA = AdapterConfig(kind=AdapterKind.lora, rank=4, alpha=8.0, projector=VisionPart.full)


def plain_gradients(model: Any, rows: list[Encoded]) -> tuple[float, dict[str, Tensor]]:
    """One row at a time through transformers' own forward, pixels and all."""
    total, count = torch.zeros(()), 0
    for row in rows:
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        logits = model(**plain_inputs(ids)).logits[0, :-1]
        labels = torch.where(torch.from_numpy(row.trained[1:]), ids[0, 1:], -100)
        total = total + nn.functional.cross_entropy(logits, labels, reduction="sum")
        count += int(row.trained[1:].sum())
    mean = total / count
    mean.backward()
    return float(mean.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    """A tower's `k_proj.bias` shifts all scores of a query alike: its gradient is rounding and nothing else."""
    assert found.keys() == wanted.keys()
    least = 1e-7 * max(gradient.norm() for gradient in wanted.values())
    for name, gradient in wanted.items():
        if not (name.endswith("k_proj.bias") and gradient.norm() < least):
            assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


def make(name: str, cache: Path, adapter: AdapterConfig) -> Any:
    torch.manual_seed(0)
    model = adapt(seeing(name, cache), adapter)
    for part, parameter in model.named_parameters():
        if "lora_B" in part:
            nn.init.normal_(parameter, std=0.05)
    return model


def in_fp64(model: Any) -> Any:
    for module in model.double().modules():
        if type(module).__name__ in ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen2VLRMSNorm"):
            module.__class__ = FusedLlamaRMSNorm  # transformers' own round to fp32
    return model


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_every_packing_equals_the_plain_loop(
    name: str, adapter: AdapterConfig, tiny_cache: Path, tmp_path: Path
) -> None:
    rows = rows_that_see(seeing_encoder(name, tiny_cache), tmp_path)
    wanted_loss, wanted = plain_gradients(make(name, tiny_cache, adapter), rows)
    of_projector = [gradient for key, gradient in wanted.items() if PROJECTOR.search(key)]
    assert of_projector and all(gradient.abs().max() > 0 for gradient in of_projector)
    shared = Packing.shared_prefix
    for packing, micro in [(Packing.none, 4), (Packing.rows, 4), (shared, 2), (shared, 11)]:
        found_loss, found = our_gradients(make(name, tiny_cache, adapter), rows, micro, packing)
        assert found_loss == pytest.approx(wanted_loss, rel=1e-5)
        assert_equal(found, wanted, 1e-5)


@pytest.mark.parametrize("name", ["llava", "qwen2vl"])
@pytest.mark.parametrize("micro", [1, 4, 11])
def test_a_shared_picture_equals_the_plain_loop_in_fp64(
    name: str, micro: int, tiny_cache: Path, tmp_path: Path
) -> None:
    rows = rows_that_see(seeing_encoder(name, tiny_cache), tmp_path)
    # Qwen2-VL's tower turns queries and keys in fp32 whatever it is in; its own gradients are exact to 2e-10 only.
    adapter = FULL if name == "llava" else replace(FULL, vision=VisionPart.frozen)
    wanted_loss, wanted = plain_gradients(in_fp64(make(name, tiny_cache, adapter)), rows)
    found_loss, found = our_gradients(in_fp64(make(name, tiny_cache, adapter)), rows, micro, Packing.shared_prefix)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-12)
    assert_equal(found, wanted, 1e-10)


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("micro", [1, 2, 11])
def test_a_picture_of_several_questions_is_looked_at_once(
    name: str, micro: int, tiny_cache: Path, tmp_path: Path
) -> None:
    rows = rows_that_see(seeing_encoder(name, tiny_cache), tmp_path)
    window = window_with_media(pack_window(rows, micro, share=True))
    passes = [one for one in (window["trunk"], *window["micro_batches"]) if one is not None]
    distinct = {int(place) for row in rows for place in row.ids[row.ids < 0]}
    assert sum(len(one["media"]["where"]) for one in passes if one["media"]) == len(distinct)
    fewest = fewest_tokens([row.ids[: row.inputs] for row in rows])
    assert fewest <= window["computed"] <= 1.05 * fewest < 0.75 * window["tokens"]


@pytest.mark.parametrize("name", SEEING)
def test_parts_are_trained_as_asked(name: str, tiny_cache: Path) -> None:
    for kind in (AdapterKind.none, AdapterKind.lora):
        for projector in VisionPart:
            for vision in VisionPart:
                if kind is AdapterKind.none and VisionPart.lora in (projector, vision):
                    continue
                model = adapt(
                    seeing(name, tiny_cache), AdapterConfig(kind=kind, rank=2, projector=projector, vision=vision)
                )
                inner = model.get_base_model() if kind is AdapterKind.lora else model
                parts, found = parts_of(inner), {}
                assert parts is not None
                for key, parameter in inner.named_parameters():
                    part = part_named(parts, key)
                    seen = "lora" if "lora_" in key else "full"
                    assert parameter.requires_grad or seen == "full"
                    if parameter.requires_grad:
                        found.setdefault(part, set()).add(seen)
                asked = {"language": "full" if kind is AdapterKind.none else "lora"}
                asked |= {"projector": projector.name, "vision": vision.name}
                assert found == {part: {how} for part, how in asked.items() if how != "frozen"}


def test_learning_rates_of_the_parts(tiny_cache: Path) -> None:
    adapter = AdapterConfig(kind=AdapterKind.lora, rank=2, projector_learning_rate=1e-3, vision=VisionPart.full)
    network = LanguageModelLoss(adapt(seeing("llava", tiny_cache), adapter))
    trainer = TrainerConfig(learning_rate=1e-4)
    found = learning_rates(network, trainer, adapter)
    assert list(found) == [1e-4, 1e-3]
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all("multi_modal_projector" in names[id(one)] for one in found[1e-3]) and len(found[1e-3]) == 4
    assert any("vision_tower" in names[id(one)] for one in found[1e-4])
    adapter.vision_learning_rate = 1e-5
    assert list(learning_rates(network, trainer, adapter)) == [1e-4, 1e-5, 1e-3]
