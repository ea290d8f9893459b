"""`fieldtune plan`: the words of train.py and its own; figures, and what would make a run fit."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from fieldtune import cli

from ..commands import ROOT
from ..stages import TINY, question_rows, run_here, write_rows

GPT2 = ("data=golf", "model=gpt2_124m", "model.weights=random", "adapter=none", "trainer=fit", "tracking=off")


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["fieldtune", "plan", *words])
    cli.main()
    return capsys.readouterr().out


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["fieldtune", "plan", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and len(err.splitlines()) == 1
    return err


def gigabytes(text: str, name: str) -> float:
    found = re.search(rf"{name} +([\d.]+) (GB|MB)", text)
    assert found, text
    return float(found[1]) * (1 if found[2] == "GB" else 1e-3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["memry=4GB"], "did you mean memory?"),
        (["memory=many"], "memory=many is not a size; give it as in memory=16GB"),
        (["devices=0"], "devices=0 is not a number of devices"),
        (["gpu=T5", "hardware=gpu"], "gpu=T5 is not known; allowed: T4, "),
        (["gpu=T4"], "gpu=T4 with hardware on the CPU; give hardware=gpu"),
        (["hour_price=cheap"], "hour_price=cheap is not a price"),
        (["trainer.learing_rate=1"], "did you mean trainer.learning_rate?"),
        (["--multirun"], "--multirun is not understood"),
    ],
)
def test_a_slip_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in refused(monkeypatch, capsys, *GPT2, *words)


def test_a_plan_needs_neither_a_gpu_nor_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = said(monkeypatch, capsys, *GPT2, "hardware=gpu", "hardware.precision=fp16", "gpu=T4", "devices=2")
    assert "124,439,808" in text and "not prepared" in text
    parts = ("weights", "gradients", "optimizer state", "activations", "logits", "workspace")
    assert sum(gigabytes(text, f"  {part}") for part in parts) == pytest.approx(gigabytes(text, "together"), abs=0.02)
    assert gigabytes(text, "  weights") == pytest.approx(0.498, abs=0.01)
    assert gigabytes(text, "optimizer state") == pytest.approx(0.9955, abs=0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_does_not_fit_gets_overrides_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = said(monkeypatch, capsys, *GPT2, "memory=4.5GB")
    assert "does not fit" in text
    remedies = text.partition("cheapest first\n")[2].splitlines()
    words = [line.split("   ")[0].split() for line in remedies]
    assert words[0][0].startswith("trainer.micro_batch_size=") and words[0][1].startswith("trainer.accumulation=")
    size, parts = (int(word.partition("=")[2]) for word in words[0])
    assert size * parts == 8  # the same rows an optimizer step
    again = said(monkeypatch, capsys, *GPT2, "memory=4.5GB", *words[0])
    assert "\nfits: " in again and f"{gigabytes(again, 'together'):.2f} GB" in remedies[0]
    assert "no override" in said(monkeypatch, capsys, *GPT2, "memory=100MB")


def test_of_a_prepared_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", question_rows(40))
    mine = ["data=jsonl", f"data.path={tmp_path / 'rows.jsonl'}", *TINY, "trainer=fit", "trainer.max_epochs=3"]
    run_here(tmp_path, "prepare", *mine)
    text = said(monkeypatch, capsys, *mine, "hour_price=3600")
    assert re.search(r"optimizer steps +15 +of 8 rows; 34 rows", text)
    tokens = re.search(r"tokens of the rows +([\d,]+) +computed after packing about ([\d,]+)", text)
    assert tokens and int(tokens[2].replace(",", "")) < int(tokens[1].replace(",", ""))
    assert "of this processor's matrix products" in text and re.search(r"money +[\d.]+ +at 3600 an hour", text)
    run = run_here(tmp_path, "train", *mine, "trainer.max_steps=2")
    assert "s a step measured in " in said(monkeypatch, capsys, *mine)
    log = (run.folder / "log.txt").read_text(encoding="utf-8")
    assert re.search(
        r"plan: 3,382,080 parameters, 3,382,080 trained; 2 steps, [\d,]+ tokens, about .*memory about", log
    )


@pytest.fixture
def mistral_7b(tmp_path: Path) -> str:
    """Mistral-7B's config.json, as a folder of weights; a plan without a data set reads no more."""
    from transformers import MistralConfig

    folder = tmp_path / "mistral"
    MistralConfig(vocab_size=32768, sliding_window=None, dtype="bfloat16").save_pretrained(folder)
    return f"model.weights=folder:{folder}"


def test_qlora_of_a_7b_fits_in_10_gb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mistral_7b: str
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    fieldtune plan (experiment=fitness_7b gpu=L4 .*)$", page, re.MULTILINE)
    assert {"trainer.micro_batch_size=1", "model.context_length=2048"} <= set(command.split())
    text = said(monkeypatch, capsys, *command.split(), "model.revision=null", mistral_7b, "memory=10GB")
    assert re.search(r"parameters +7,289,966,592 +trainable 41,943,040", text)
    assert gigabytes(text, "  weights") == pytest.approx(4.31, abs=0.02)
    assert gigabytes(text, "  optimizer state") == pytest.approx(0.085, abs=0.002)
    assert gigabytes(text, "together") < 10 and "\nfits: " in text
    (line,) = re.findall(r"computed again.*?\n\| 1 x 2048 (\|.*?)\| yes \|", page, re.DOTALL)
    parts = ("weights", "gradients", "optimizer state", "activations", "logits", "workspace", "together")
    written = [re.fullmatch(r"([\d.]+) (GB|MB)", cell.strip()) for cell in line.strip("|").split("|")]
    for part, found in zip(parts, written, strict=True):
        assert found and gigabytes(text, f"  {part}") == pytest.approx(
            float(found[1]) * (1 if found[2] == "GB" else 1e-3), rel=0.02
        )


@pytest.mark.slow
def test_a_7b_that_does_not_fit_is_helped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mistral_7b: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data=golf", "model=mistral_7b", "model.revision=null", mistral_7b, "hardware=gpu", "memory=10GB"]
    small = ["trainer.micro_batch_size=1", "trainer.optimizer=paged_adamw_8bit"]
    again = "trainer.activation_checkpointing=true"
    more = said(monkeypatch, capsys, *words, *small, "adapter=qlora")
    assert "does not fit" in more and re.search(rf"\n  {again}   [\d.]+ GB; the same gradients", more)
    lora = said(monkeypatch, capsys, *words, *small, again, "adapter=lora")
    assert gigabytes(lora, "  weights") > 28 and re.search(r"\n  adapter=qlora   [\d.]+ GB; ", lora)
