"""The train stage in this process: how long it trains, which weights it keeps, what a later run starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

from fieldtune.data.encode import Encoder
from fieldtune.data.load import load_split
from fieldtune.datasets import find
from fieldtune.errors import UserError
from fieldtune.loading import load
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.run_model import RunModel
from fieldtune.models.scoring import mean_loss, row_losses
from fieldtune.models.tokenizer import Gpt2Tokenizer
from fieldtune.runs import Run

from ..stages import curve, lines_of, run_here
from .conftest import words


def val_loss(run: Run, model: torch.nn.Module) -> float:
    """Validation loss of a model on the data of a run, computed apart from training."""
    config = load(run.config())
    dataset = find(config)
    assert dataset is not None
    rows = load_split(dataset, "val", Encoder(Gpt2Tokenizer(), config.model.template), 1024)
    return mean_loss(row_losses(LanguageModelLoss(model.eval()), rows.encoded, 50256, 4))


@pytest.fixture(scope="module")
def full(work: Path) -> Run:
    """Every weight trained for 2 epochs of 3 steps."""
    return run_here(work, "train", *words(work, "trainer.eval_every=2"))


@pytest.fixture(scope="module")
def lora(work: Path, full: Run) -> Run:
    """An adapter of rank 4 on what the full run left."""
    adapter = ["adapter=lora", "adapter.rank=4", "trainer.eval_every=1", "trainer.learning_rate=2e-3"]
    return run_here(work, "train", *words(work, f"model.weights=run:{full.folder}", *adapter))


def test_epochs_and_steps_limit_a_run(work: Path, full: Run) -> None:
    assert full.manifest()["steps"]["done"] == 6
    assert [line["epoch"] for line in lines_of(full.folder / "metrics.jsonl")[1:]] == [1, 1, 1, 2, 2, 2]
    short = run_here(work, "train", *words(work, "trainer.max_steps=4", "trainer.eval_every=2"))
    assert short.manifest()["steps"]["done"] == short.manifest()["steps"]["planned"] == 4
    for name in ("train/loss", "val/loss"):  # a shorter run is the start of a longer one
        assert list(curve(short, name).items()) == list(curve(full, name).items())[: len(curve(short, name))]
    one = run_here(work, "train", *words(work, "trainer.max_epochs=1", "trainer.max_steps=50"))
    assert one.manifest()["steps"]["done"] == 3


def test_the_best_weights_are_kept(full: Run) -> None:
    best = min(curve(full, "val/loss").values())
    model = GPT2LMHeadModel.from_pretrained(full.folder / "model")
    assert val_loss(full, model) == pytest.approx(best, rel=1e-6)
    assert full.manifest()["metrics"]["val/best_loss"] == best


def test_training_stops_when_validation_does_not_improve(work: Path) -> None:
    run = run_here(
        work,
        "train",
        *words(
            work, "trainer.max_epochs=40", "trainer.eval_every=1", "trainer.patience=2", "trainer.learning_rate=0.03"
        ),
    )
    losses = curve(run, "val/loss")
    steps = run.manifest()["steps"]
    kept = min(losses, key=losses.__getitem__)
    assert steps["stopped_early"] and 0 < steps["kept"] == kept < steps["planned"]
    assert steps["done"] == max(losses) == kept + 2
    model = GPT2LMHeadModel.from_pretrained(run.folder / "model")
    assert val_loss(run, model) == pytest.approx(losses[kept], rel=1e-6)


def test_weights_that_only_get_worse_are_not_kept(work: Path) -> None:
    run = run_here(
        work, "train", *words(work, "trainer.max_steps=2", "trainer.eval_every=1", "trainer.learning_rate=5")
    )
    losses = curve(run, "val/loss")
    assert losses[0] == min(losses.values()) and run.manifest()["steps"]["kept"] == 0
    model = GPT2LMHeadModel.from_pretrained(run.folder / "model")
    assert val_loss(run, model) == pytest.approx(losses[0], rel=1e-6)


def test_an_adapter_that_only_makes_worse_is_one_line(work: Path, full: Run) -> None:
    rate = [
        "adapter=lora",
        f"model.weights=run:{full.folder}",
        "trainer.max_steps=2",
        "trainer.eval_every=1",
        "trainer.learning_rate=9",
    ]
    with pytest.raises(UserError, match=r"no validation loss .* below .* trainer\.learning_rate"):
        run_here(work, "train", *words(work, *rate))


def test_no_validation_rows_keep_the_last_weights(work: Path) -> None:
    split = "data.split=[0.8,0,0.2]"
    run_here(work, "prepare", *words(work, split))
    run = run_here(work, "train", *words(work, split, "trainer.max_steps=2", "trainer.sample_rows=1"))
    assert curve(run, "val/loss") == {} and run.manifest()["steps"]["kept"] == 2
    assert not (run.folder / "samples.jsonl").exists()


def test_a_later_run_starts_where_an_earlier_one_ended(work: Path, full: Run, lora: Run) -> None:
    assert curve(lora, "val/loss")[0] == pytest.approx(full.manifest()["metrics"]["val/best_loss"], rel=1e-6)
    merged = run_here(work, "train", *words(work, f"model.weights=run:{lora.folder}", "trainer.max_steps=1"))
    assert curve(merged, "val/loss")[0] == pytest.approx(lora.manifest()["metrics"]["val/best_loss"], abs=1e-4)


def test_an_adapter_on_random_weights_is_no_start(work: Path) -> None:
    short = ["trainer.max_steps=1", "trainer.eval_every=1"]
    run = run_here(work, "train", *words(work, "adapter=lora", *short))
    with pytest.raises(UserError, match=r"is an adapter on random weights, .*start from a run with adapter=none"):
        run_here(work, "train", *words(work, f"model.weights=run:{run.folder}", *short))


def test_a_run_folder_that_is_none_is_one_line(work: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        run_here(work, "train", *words(work, f"model.weights=run:{work}"))


def test_lora_moves_the_adapter_and_leaves_the_base(full: Run, lora: Run) -> None:
    saved = load_file(lora.folder / "adapter" / "adapter_model.safetensors")
    second = [value for name, value in saved.items() if "lora_B" in name]
    assert len(second) == 2 * 4 and all(value.abs().max() > 0 for value in second)  # attention and MLP, in and out
    assert all("lora_" in name for name in saved)
    checkpoint = torch.load(max(lora.folder.glob("checkpoints/step-*/state.ckpt")), weights_only=True)
    assert checkpoint["state_dict"] and all("lora_" in name for name in checkpoint["state_dict"])
    before = GPT2LMHeadModel.from_pretrained(full.folder / "model").state_dict()
    with RunModel(lora, load(lora.config())).system("tuned") as model:
        base = {name.replace(".base_layer", ""): value for name, value in model.get_base_model().state_dict().items()}
        assert all(torch.equal(base[name], value) for name, value in before.items())


def test_a_saved_adapter_is_the_one_in_memory(lora: Run) -> None:
    best = lora.manifest()["metrics"]["val/best_loss"]
    kept = load_file(lora.folder / "checkpoints" / "best.safetensors")
    saved = load_file(lora.folder / "adapter" / "adapter_model.safetensors")
    trimmed = {name.removeprefix("model.").replace(".default", ""): value for name, value in kept.items()}
    assert trimmed.keys() == saved.keys() and all(torch.equal(trimmed[name], saved[name]) for name in saved)
    with RunModel(lora, load(lora.config())).system("tuned") as model:
        assert val_loss(lora, model) == pytest.approx(best, rel=1e-6)


def test_plain_peft_loads_the_adapter(full: Run, lora: Run) -> None:
    base = GPT2LMHeadModel.from_pretrained(full.folder / "model")
    model = PeftModel.from_pretrained(base, str(lora.folder / "adapter"))
    assert val_loss(lora, model) == pytest.approx(lora.manifest()["metrics"]["val/best_loss"], rel=1e-6)


def test_the_base_in_evaluation_is_the_model_without_adapter(work: Path, full: Run, lora: Run) -> None:
    few = ["tracking=off", "hardware.threads=1", "evaluation.max_new_tokens=8"]
    found = lines_of(run_here(work, "evaluate", f"run={lora.folder}", *few).folder / "predictions.jsonl")
    plain = lines_of(
        run_here(work, "evaluate", f"run={full.folder}", *few, "evaluation.base=false").folder / "predictions.jsonl"
    )
    assert [row["answers"]["base"] for row in found] == [row["answers"]["tuned"] for row in plain]
    losses = [row["scores"]["tuned"]["loss"] for row in plain]
    assert [row["scores"]["base"]["loss"] for row in found] == pytest.approx(losses, rel=1e-6)
    assert all(row["scores"]["tuned"]["loss"] < row["scores"]["base"]["loss"] for row in found)


def test_an_unknown_adapter_target_is_one_line(work: Path) -> None:
    with pytest.raises(UserError, match=r"adapter\.targets=\['q_prj'\].*layers there are: .*c_attn"):
        run_here(work, "train", *words(work, "adapter=lora", "adapter.targets=[q_prj]"))


def test_warmup_longer_than_the_run_is_one_line(work: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.warmup_steps=6 leaves no step of 6"):
        run_here(work, "train", *words(work, "trainer.warmup_steps=6"))


def test_rows_that_are_too_long_are_left_out_and_named(work: Path) -> None:
    with pytest.raises(UserError, match=r"no train row can be used: .* tokens; model\.context_length is 20"):
        run_here(work, "train", *words(work, "model.context_length=20"))
