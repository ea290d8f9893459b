"""Rendered films through every stage, with each family that sees pictures and films: trained, evaluated, asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.loading import load
from fieldtune.models.run_model import start_model
from fieldtune.records import read_examples
from fieldtune.serving.predictor import Predictor
from tests.models.seen_films import FRAMES, TAKING_FILMS
from tests.stages import curve, run_here

COMMON = ("data=qved_films", "data.count=24", "tracking=off", "hardware.threads=1")
TRAINED = (
    "adapter=lora",
    "trainer=fit",
    "trainer.micro_batch_size=4",
    "trainer.max_epochs=2",
    "trainer.max_steps=null",
    "trainer.learning_rate=0.01",
    "trainer.sample_rows=0",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("rendered")
    run_here(work, "prepare", *COMMON, f"data.films={work / 'films'}")
    return work


def words(work: Path, name: str, *more: str) -> tuple[str, ...]:
    places = (f"data.films={work / 'films'}", f"cache_dir={work / 'cache'}")
    return (*COMMON, *TRAINED, *places, f"model={name}_tiny", *more)


@pytest.mark.parametrize(
    "name", [name if name == "qwen2vl" else pytest.param(name, marks=pytest.mark.slow) for name in TAKING_FILMS]
)
def test_it_is_trained_evaluated_and_asked(name: str, work: Path) -> None:
    run = run_here(work, "train", *words(work, name))
    kept = run.manifest()["media_cache"]
    assert (kept["made"], kept["kept"]) == (16, "looks")  # films of the training and validation rows
    assert kept["read"] > 0
    losses = list(curve(run, "train/loss").values())
    assert losses[-1] < losses[0] and not run.manifest()["left_out"]["train"]
    more = ("evaluation.max_new_tokens=4", "evaluation.bootstrap=100", "evaluation.rows=2")
    found = run_here(work, "evaluate", "tracking=off", f"run={run.folder}", *more)
    assert found.manifest()["metrics"]["tuned/loss"] < found.manifest()["metrics"]["base/loss"]
    example = next(iter(read_examples(Path(run.manifest()["data"]["folder"]) / "test.jsonl")))
    asked = {"messages": [message.to_json() for message in example.messages[:-1]]}
    (answer,) = Predictor(run.folder).predict([asked])
    assert answer.tokens > 0
    _, encoder = start_model(load(run.config()))
    (shown,) = encoder.row(example.messages).media
    assert len(shown.frames) == (2 if name == "smolvlm" else FRAMES)  # a film of two seconds


@pytest.mark.slow
@pytest.mark.parametrize(("vision", "kept"), [("full", "pixels"), ("frozen", "looks")])
def test_a_second_training_decodes_nothing(work: Path, vision: str, kept: str) -> None:
    """Neither do the epochs after the first; and what is read is what would be made."""
    facts, losses = [], []
    for gigabytes in (50, 50, 0):
        more = (f"adapter.vision={vision}", f"trainer.media_cache_gb={gigabytes}", f"cache_dir={work / vision}")
        run = run_here(work, "train", *words(work, "qwen2vl", *more))
        facts.append(run.manifest().get("media_cache", {}))
        losses.append(list(curve(run, "train/loss").values()))
    assert [one.get("made") for one in facts] == [16, 0, None]
    assert [one.get("kept") for one in facts] == [kept, kept, None]
    assert losses[0] == losses[1]
    assert losses[2] == (losses[0] if kept == "pixels" else pytest.approx(losses[0], abs=1e-4))
