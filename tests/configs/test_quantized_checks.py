"""What cannot be trained in 4 bits is refused in one line, before torch is imported."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fieldtune.checks import check
from fieldtune.errors import ConfigError
from fieldtune.half_precision import fp16_problem
from tests.stages import compose

QLORA = ("model=mistral_tiny", "adapter=qlora", "tracking=off")


def problems(folder: Path, *words: str) -> list[str]:
    try:
        check(compose(folder, "train", *words), "plan")
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["adapter=lora", "adapter.bits=4"], "adapter.bits=4 needs adapter=qlora (got lora)"),
        (["adapter=none", "adapter.bits=4"], "adapter.bits=4 needs adapter=qlora (got none)"),
        (["adapter.bits=8"], "adapter.bits=8 is out of range; allowed: 4 to 4"),
        (["adapter.bits=null"], "adapter=qlora needs adapter.bits=4 (got null)"),
        (["model=gpt2_tiny"], "adapter=qlora packs linear layers, which a GPT-2 has none of; give adapter=lora"),
        (["adapter.compute=fp16"], "adapter.compute=fp16 needs a GPU; give adapter.compute=bf16 or fp32 on the CPU"),
        (
            ["hardware=gpu", "hardware.precision=fp16"],
            "adapter.compute=bf16 with hardware.precision=fp16; give adapter.compute=fp16",
        ),
        (
            ["hardware=gpu", "adapter.compute=fp16"],
            "adapter.compute=fp16 with hardware.precision=bf16; give adapter.compute=bf16",
        ),
        (
            ["adapter.dropout=0.05"],
            "adapter.dropout=0.05 with trainer.packing=shared_prefix: rows would share a mask where they share tokens; "
            "give adapter.dropout=0 or trainer.packing=rows",
        ),
        (["model.weights=tiny:llama"], "model.weights=tiny:llama is not made here; allowed: tiny:gemma, tiny:gemma2, "),
    ],
)
def test_impossible_combinations(tmp_path: Path, words: list[str], told: str) -> None:
    (problem,) = problems(tmp_path, *QLORA, *words)
    assert problem.startswith(told)


@pytest.mark.parametrize("hardware", ["fsdp2", "deepspeed_zero2", "deepspeed_zero3"])
def test_what_is_shared_out_is_not_packed(tmp_path: Path, hardware: str) -> None:
    name = f"hardware.strategy={hardware.removeprefix('deepspeed_')}"
    small = "trainer.optimizer=paged_adamw_8bit"
    found = problems(tmp_path, *QLORA, f"hardware={hardware}", small)
    for start in ("adapter=qlora", small):
        assert sum(problem.startswith(f"{start} with {name}") for problem in found) == 1, found


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["hardware=gpu"],
        ["hardware=gpu", "hardware.precision=fp16", "adapter.compute=fp16"],
        ["adapter.compute=fp32"],
        ["hardware=ddp_cpu"],
        ["adapter.dropout=0.05", "trainer.packing=rows"],
        ["trainer.optimizer=paged_adamw_8bit", "trainer.activation_checkpointing=true"],
        ["model=mistral_7b", "hardware=gpu"],
        ["model=hub", "model.weights=hub:owner/name"],
    ],
)
def test_possible_ones(tmp_path: Path, words: list[str]) -> None:
    assert problems(tmp_path, *QLORA, *words) == []


def test_a_missing_bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "bitsandbytes" else there(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert problems(tmp_path, *QLORA) == [
        "adapter=qlora needs the package bitsandbytes; pip install 'fieldtune[qlora]'"
    ]
    assert problems(tmp_path, "adapter=lora", "trainer.optimizer=paged_adamw_8bit", "tracking=off") == [
        "trainer.optimizer=paged_adamw_8bit needs the package bitsandbytes; pip install 'fieldtune[qlora]'"
    ]


FP16 = ("hardware=gpu", "hardware.precision=fp16")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=gemma_2b", *FP16, "adapter=lora"], "hardware.precision=fp16: gemma models overflow in fp16; give h"),
        (["model=gemma2_tiny", *FP16, "adapter=none"], "hardware.precision=fp16: gemma2 models overflow in fp16"),
        (["model=hub", "model.weights=hub:owner/codegemma-7b-it", *FP16, "adapter=lora"], "hardware.precision=fp16: g"),
        (
            ["model=gemma2_2b", *FP16, "adapter.compute=fp16"],
            "hardware.precision=fp16 and adapter.compute=fp16: gemma models overflow in fp16; "
            "give hardware.precision=bf16 adapter.compute=bf16, or fp32 on a GPU without bf16",
        ),
        (
            ["model=gemma_2b", "hardware=gpu", "hardware.precision=fp32", "adapter.compute=fp16"],
            "adapter.compute=fp16: gemma models overflow in fp16; give adapter.compute=bf16",
        ),
    ],
)
def test_a_gemma_in_fp16(tmp_path: Path, words: list[str], told: str) -> None:
    (problem,) = problems(tmp_path, *QLORA, *words)
    assert problem.startswith(told)


def test_a_gemma_in_a_folder_is_known_by_its_config(tmp_path: Path) -> None:
    for family, count in (("gemma3_text", 1), ("mistral", 0), ("", 0)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family} if family else ["broken"]))
        found = problems(tmp_path, *QLORA, *FP16, f"model.weights=folder:{tmp_path}", "adapter.compute=fp16")
        assert [problem.count("gemma3_text models overflow") for problem in found] == [1] * count


@pytest.mark.parametrize(
    "words", [["hardware=gpu"], ["hardware=gpu", "hardware.precision=fp32", "adapter.compute=fp32"]]
)
@pytest.mark.parametrize("model", ["gemma_2b", "gemma2_tiny"])
def test_a_gemma_in_other_formats(tmp_path: Path, model: str, words: list[str]) -> None:
    assert problems(tmp_path, *QLORA, f"model={model}", *words) == []


def test_what_only_the_files_can_tell_is_asked_again_after_loading(tmp_path: Path) -> None:
    words = ("model=hub", "model.weights=hub:owner/tuned-model", *FP16)
    config = compose(tmp_path, "train", *QLORA, *words, "adapter=lora")
    check(config, "plan")
    assert fp16_problem("gemma2", config) and fp16_problem("llama", config) is None
