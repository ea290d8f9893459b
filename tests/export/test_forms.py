"""Exports of finished runs: loaded as anyone loads them, equal to the run's model, published whole or not at all."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fieldtune.config import Config
from fieldtune.errors import UserError
from fieldtune.export.options import WORDS, options
from fieldtune.export.stage import MANIFEST, export
from fieldtune.loading import load
from fieldtune.models.exported import unpacked
from fieldtune.models.run_model import RunModel
from fieldtune.models.tiny import ensure_tiny
from fieldtune.records import Message, file_sha256
from fieldtune.runs import Run

from .conftest import trained

TEXT = "Which engine of amber river did team 3 bring?"


def exported(run: Run, target: Path, *words: str) -> Path:
    given = dict(word.split("=", 1) for word in ("prompts=3", "tokens=8", *words))
    keys = {"run": str(run.folder), "out": str(target), **given}
    return export(options({key: keys.get(key, "") for key in WORDS}))


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    return found


def config_of(run: Run) -> Config:
    return load(run.config())


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(40)[None]).logits
    return found


@pytest.fixture(scope="module")
def tuned(mistral_run: Run) -> Iterator[torch.Tensor]:
    """Logits of the run's own model, in fp32."""
    with RunModel(mistral_run, unpacked(config_of(mistral_run))).system("tuned") as model:
        yield logits(model)


def test_plain_peft_loads_the_adapter(mistral_run: Run, tuned: torch.Tensor, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported(mistral_run, tmp_path / "out", "to=adapter")
    cache = Path(config_of(mistral_run).cache_dir)
    base = AutoModelForCausalLM.from_pretrained(ensure_tiny("mistral", cache), dtype=torch.float32)
    before = logits(base)
    model = PeftModel.from_pretrained(base, str(folder))
    assert torch.equal(logits(model), tuned)
    assert (before - tuned).abs().max() > 1e-3  # it is not the base
    with model.disable_adapter():
        assert torch.equal(logits(model), before)
    assert "THIS_FOLDER" in (folder / "README.md").read_text("utf-8")
    assert str(cache) not in "".join(path.read_text("utf-8") for path in folder.glob("*.[jm]*[nd]"))
    assert AutoTokenizer.from_pretrained(str(folder)).chat_template
    assert manifest(folder)["checks"]["adapter"]["difference"] < 1e-3


def test_plain_transformers_loads_the_merged_model(mistral_run: Run, tuned: torch.Tensor, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported(mistral_run, tmp_path / "out", "to=merged")
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    assert (logits(model) - tuned).abs().max() < 1e-3
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": TEXT}]
    encoder = RunModel(mistral_run, config_of(mistral_run)).encoder
    wanted = encoder.prompt([Message("system", ("Be kind.",)), Message("user", (TEXT,))])
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == wanted
    assert model.generation_config.eos_token_id == sorted(encoder.tokenizer.stop_ids)


def test_the_manifest_says_what_it_is_and_from_where(mistral_run: Run, tmp_path: Path) -> None:
    folder = exported(mistral_run, tmp_path / "out", "to=merged", "precision=bf16")
    found = manifest(folder)
    assert (found["to"], found["precision"], found["architecture"]) == ("merged", "bf16", "mistral")
    assert found["run"]["id"] == mistral_run.started["id"] and found["base"]["weights"] == "tiny:mistral"
    base = ensure_tiny("mistral", Path(config_of(mistral_run).cache_dir)) / "model.safetensors"
    assert found["base"]["sha256"] == {"model.safetensors": file_sha256(base)}
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    assert found["files"].keys() == names
    assert all(file_sha256(folder / name) == facts["sha256"] for name, facts in found["files"].items())
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o044 for path in folder.rglob("*"))
    assert load_file(folder / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


def test_the_state_dict_of_a_gpt2_is_the_documents(gpt2_run: Run, tmp_path: Path) -> None:
    folder = exported(gpt2_run, tmp_path / "out", "to=pth")
    (path,) = folder.glob("*.pth")
    state = torch.load(path, weights_only=True)
    (own,) = gpt2_run.folder.glob("*.pth")
    theirs = torch.load(own, weights_only=True)
    assert state.keys() == theirs.keys() and all(torch.equal(state[name], theirs[name]) for name in state)
    assert "trf_blocks.0.att.W_query.weight" in state


def test_the_state_dict_of_another_model_is_transformers(mistral_run: Run, tuned: torch.Tensor, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = exported(mistral_run, tmp_path / "out", "to=pth")
    (path,) = folder.glob("*.pth")
    base = ensure_tiny("mistral", Path(config_of(mistral_run).cache_dir))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    model.load_state_dict(torch.load(path, weights_only=True))
    assert (logits(model) - tuned).abs().max() < 1e-3


def test_every_weight_trained_is_exported_too(gpt2_run: Run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported(gpt2_run, tmp_path / "out", "to=merged")
    with RunModel(gpt2_run, config_of(gpt2_run)).system("tuned") as model:
        wanted = logits(model)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(str(folder))), wanted)
    text = AutoTokenizer.from_pretrained(str(folder)).apply_chat_template(
        [{"role": "user", "content": TEXT}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith(f"### Instruction:\n{TEXT}\n\n### Response:\n")


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("to=merged", "max_difference=0"), "a logit by .* allowed is 0; nothing is published"),
        (
            ("to=merged", "precision=fp16", "max_kl=0"),
            "says other things than the tuned model: .*; nothing is published",
        ),
    ],
)
def test_over_a_bound_nothing_is_published(mistral_run: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        exported(mistral_run, tmp_path / "out", *words)
    assert left(tmp_path) == []


def test_what_is_refused_says_what_is_possible(gpt2_run: Run, mistral_run: Run, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    with pytest.raises(UserError, match="has no adapter: every weight was trained; give to=merged"):
        exported(gpt2_run, tmp_path / "out", "to=adapter")
    with pytest.raises(UserError, match=r"Ollama does not run gpt2 models; to=gguf is for llama.cpp, to=merged"):
        exported(gpt2_run, tmp_path / "out", "to=ollama", "skip=template,answers")
    assert left(tmp_path) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already; delete it, or give another out=FOLDER"):
        exported(mistral_run, tmp_path / "out", "to=merged")


def test_a_skipped_check_is_said(mistral_run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = exported(mistral_run, tmp_path / "out", "to=merged", "skip=answers")
    assert manifest(folder)["checks"] == {"answers": "not checked"}
    assert "not checked: answers (skip=answers)" in caplog.text


def test_what_is_not_installed_is_said_first(mistral_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fieldtune.export import gguf_file

    monkeypatch.setenv("PATH", str(tmp_path))
    if gguf_file.has_llama():
        with pytest.raises(UserError, match=r"needs Go; apt-get install golang-go .* or give skip=template"):
            exported(mistral_run, tmp_path / "out", "to=ollama")
    else:
        with pytest.raises(UserError, match=r"fieldtune\[gguf\]"):
            exported(mistral_run, tmp_path / "out", "to=ollama")


def test_qlora_is_merged_into_whole_weights(tmp_path: Path) -> None:
    """Not into the 4-bit ones: merged minus update is the base as it was released, to rounding."""
    pytest.importorskip("bitsandbytes")
    run = trained(tmp_path, "model=mistral_tiny", "adapter=qlora", f"cache_dir={tmp_path / 'cache'}")
    folder = exported(run, tmp_path / "out", "to=merged")
    base = load_file(ensure_tiny("mistral", tmp_path / "cache") / "model.safetensors")
    merged, adapter = (
        load_file(folder / "model.safetensors"),
        load_file(run.folder / "adapter/adapter_model.safetensors"),
    )
    moved = 0
    for name, weight in base.items():
        first, second = (adapter.get(f"base_model.model.{name[: -len('.weight')]}.lora_{x}.weight") for x in "AB")
        update = second @ first * 2.0 if first is not None and second is not None else torch.zeros(())  # alpha / rank
        moved += bool(update.abs().max() > 0)
        assert (merged[name] - update - weight).abs().max() < 1e-6, name
    assert moved == 14
    checks = manifest(folder)["checks"]
    assert checks["merged"]["difference"] < 1e-3 < checks["four_bits"]["difference"]
