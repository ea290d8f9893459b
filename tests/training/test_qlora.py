"""QLoRA runs from end to end: the base bit-equal, the adapter moved, reloaded as it was, resumed as if nothing was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fieldtune import runs
from fieldtune.data.load import load_split
from fieldtune.datasets import find
from fieldtune.loading import load
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.run_model import RunModel, start_model
from fieldtune.models.scoring import mean_loss, row_losses
from fieldtune.training.stage import train

from ..stages import compose, curve, lines_of, question_rows, run_here, told, work_here, write_rows
from .test_resume import Failing

pytest.importorskip("bitsandbytes")
SYSTEM = {"role": "system", "content": "You are a quartermaster. Answer in one sentence, with the numbers."}
QLORA = (
    "adapter=qlora",
    "trainer=fit",
    "trainer.learning_rate=3e-3",
    "trainer.optimizer=paged_adamw_8bit",
    "trainer.activation_checkpointing=true",
    "trainer.scheduler=cosine",
    "trainer.warmup_steps=1",
    "trainer.eval_every=2",
    "trainer.sample_tokens=4",
    "tracking=off",
    "hardware.threads=1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 30 / 6 / 4 short rows with a system text."""
    made = tmp_path_factory.mktemp("qlora")
    rows = [{"messages": [SYSTEM, *row["messages"]]} for row in question_rows(40)]
    write_rows(made / "rows.jsonl", rows)
    run_here(made, "prepare", *data(made), "tracking=off")
    return made


def data(folder: Path) -> tuple[str, ...]:
    return ("data=jsonl", f"data.path={folder / 'rows.jsonl'}", "data.split=[0.75,0.15,0.1]")


def words(folder: Path, cache: Path, family: str, *more: str) -> list[str]:
    return [*data(folder), f"model={family}_tiny", f"cache_dir={cache}", *QLORA, "trainer.max_steps=6", *more]


@pytest.mark.parametrize("family", ["mistral", "gemma", "gemma2"])
def test_a_run(folder: Path, tiny_cache: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}

    def starting(config: Any) -> Any:
        model, encoder = start_model(config)
        kept["model"], kept["before"] = model, copy_of(model)
        return model, encoder

    monkeypatch.setattr("fieldtune.training.stage.start_model", starting)
    run = run_here(folder, "train", *words(folder, tiny_cache, family))
    after = copy_of(kept["model"])
    moved = {name for name, value in kept["before"].items() if not torch.equal(value, after[name])}
    assert moved == {name for name in after if "lora_" in name}  # both matrices of every layer, and nothing of the base
    assert any(name.endswith("quant_state.bitsandbytes__nf4") for name in after)
    losses = list(curve(run, "val/loss").values())
    assert losses[-1] < losses[0]
    assert run.manifest()["model"]["trainable_parameters"] == sum(after[name].numel() for name in moved)

    config = load(run.config())
    reloaded = RunModel(run, config)
    dataset = find(config)
    assert dataset is not None
    val = load_split(dataset, "val", reloaded.encoder, config.model.context_length)
    in_memory = row_losses(LanguageModelLoss(kept["model"]), val.encoded, 0, 4)
    with reloaded.system("tuned") as model:
        again = row_losses(LanguageModelLoss(model), val.encoded, 0, 4)
    assert again == in_memory
    assert mean_loss(again) == pytest.approx(min(losses), rel=1e-3)
    with reloaded.system("base") as model:
        assert mean_loss(row_losses(LanguageModelLoss(model), val.encoded, 0, 4)) == pytest.approx(losses[0], rel=1e-3)


def copy_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_it_goes_on_as_if_nothing_had_been(folder: Path, tiny_cache: Path) -> None:
    arguments = words(folder, tiny_cache, "mistral", "trainer.checkpoint_every=2")
    whole = run_here(folder, "train", *arguments)
    cut = folder / "cut"
    cut.mkdir()
    for name in (runs.CONFIG, runs.STARTED):
        shutil.copy(whole.folder / name, cut / name)
    with pytest.raises(ConnectionError):
        train(compose(folder, "train", *arguments), cut, Failing(5))
    assert (cut / "checkpoints" / "step-00000004").is_dir()
    work_here(cut)
    assert told(cut) == told(whole.folder)
    adapters = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (cut, whole.folder)]
    assert all(torch.equal(value, adapters[1][name]) for name, value in adapters[0].items())
    assert lines_of(cut / "samples.jsonl") == lines_of(whole.folder / "samples.jsonl")


def test_evaluated_and_opened_by_peft(folder: Path, tiny_cache: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from fieldtune.models.tiny import ensure_tiny

    run = run_here(folder, "train", *words(folder, tiny_cache, "gemma", "trainer.packing=none"))
    found = run_here(folder, "evaluate", f"run={run.folder}", "evaluation.max_new_tokens=4", "tracking=off")
    answers = lines_of(found.folder / "predictions.jsonl")
    assert {name for line in answers for name in line["answers"]} == {"base", "tuned"}
    plain = AutoModelForCausalLM.from_pretrained(ensure_tiny("gemma", tiny_cache))  # not packed: the 32-bit base
    adapted = PeftModel.from_pretrained(plain, run.folder / "adapter")
    assert any(parameter.abs().max() > 0 for name, parameter in adapted.named_parameters() if "lora_B" in name)


@pytest.mark.slow
def test_smollm2(folder: Path, smollm2: Path) -> None:
    """The real pretrained model, packed, learns in a few steps."""
    more = ("adapter=qlora", "model=smollm2_135m", "trainer.max_steps=8", "trainer.learning_rate=1e-3")
    options = [word for word in QLORA if not word.startswith(("adapter", "trainer.learning_rate"))]
    run = run_here(folder, "train", *data(folder), *options, *more, "trainer.micro_batch_size=4")
    losses = list(curve(run, "val/loss").values())
    assert losses[-1] < 0.8 * losses[0]
    facts = run.manifest()["model"]
    assert (facts["parameters"], facts["trainable_parameters"]) == (134_515_008 + 4_884_480, 4_884_480)


@pytest.mark.slow
def test_two_processes(folder: Path, tiny_cache: Path) -> None:
    """Each with the whole packed base; the adapter's gradients are summed."""
    from ..stages import succeed

    places = [f"output_dir={folder / 'outputs'}", f"dataset_dir={folder / 'datasets'}"]
    arguments = [*words(folder, tiny_cache, "mistral", "trainer.sample_rows=0"), *places]
    succeed(folder, "train", *arguments, f"run_dir={folder / 'one'}")
    succeed(folder, "train", *arguments, "hardware=ddp_cpu", "trainer.micro_batch_size=4", f"run_dir={folder / 'two'}")
    one, two = (curve(folder / name, "val/loss") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(two[step] == pytest.approx(value, rel=1e-3) for step, value in one.items())


def test_encoder_of_a_run_is_that_of_its_training(folder: Path, tiny_cache: Path) -> None:
    """The template, its end of turn and where a system text goes come from the run's own folder."""
    run = run_here(folder, "train", *words(folder, tiny_cache, "gemma", "trainer.max_steps=2"))
    config = load(run.config())
    stored, trained = RunModel(run, config).encoder, start_model(config)[1]
    dataset = find(config)
    assert dataset is not None
    for encoded, again in zip(
        *(load_split(dataset, "val", encoder, 512).encoded for encoder in (stored, trained)), strict=True
    ):
        assert encoded.ids.tolist() == again.ids.tolist() and encoded.trained.tolist() == again.trained.tolist()
