"""`experiment=qved_demo`: drawn exercise films, prepared, learned by a small model, evaluated with and without eyes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fieldtune.runs import Run
from tests.stages import lines_of, run_here, succeed

EXPERIMENT = ("experiment=qved_demo", "tracking=off")
SHORT = (
    *EXPERIMENT,
    "data.count=34",
    "data.split=[0.5,0.25,0.25]",
    "trainer.max_steps=2",
    "trainer.warmup_steps=1",
    "trainer.micro_batch_size=4",
    "trainer.sample_rows=0",
    "hardware=cpu",
    "hardware.threads=1",
)
ABLATIONS = ("none", "text_only", "blank", "first_frame", "shuffled")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("qved")
    words = (*SHORT, f"cache_dir={tiny_cache}")
    run_here(folder, "prepare", *words)
    return folder, run_here(folder, "train", *words)


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {**found, "metrics": {metric["name"]: metric for metric in found["metrics"]}}


def test_films_can_be_kept_from_the_model(work: tuple[Path, Run]) -> None:
    """Each ablation shows something else, and the loss of the untrained model's rows says so."""
    folder, run = work
    more = ("tracking=off", "evaluation.max_new_tokens=2", "evaluation.bootstrap=100", f"run={run.folder}")
    losses = {}
    for ablation in ABLATIONS:
        evaluated = run_here(folder, "evaluate", *more, f"evaluation.ablation={ablation}")
        summary = metrics_of(evaluated.folder)
        losses[ablation] = summary["metrics"]["loss"]["base"]["value"]
        assert summary["data"]["ablation"] == ablation
        assert any("without looking" in note for note in summary["notes"]) == (ablation != "none")
        assert not (evaluated.folder / "ablated").exists()
    assert len(set(losses.values())) == len(ABLATIONS)


def test_a_report_says_what_always_one_answer_would_get(work: tuple[Path, Run]) -> None:
    folder, run = work
    more = ("tracking=off", "evaluation.max_new_tokens=2", "evaluation.bootstrap=100", "evaluation.base=false")
    evaluated = run_here(folder, "evaluate", *more, f"run={run.folder}").folder
    summary, lines = metrics_of(evaluated), lines_of(evaluated / "predictions.jsonl")
    ordered = sum("backward" in line["meta"] for line in lines)
    assert summary["data"]["groups"] < len(lines)  # intervals are drawn over performers
    for name in ("exercise", "fault", "both", "rouge_l", "meteor"):
        assert summary["metrics"][name]["baseline"]["n"] == len(lines)
    assert summary["metrics"]["order"]["tuned"]["n"] == ordered > 0
    assert {table["name"] for table in summary["breakdowns"]} == {"exercise", "label"}


@pytest.mark.slow
def test_exercises_and_faults_are_learned_by_looking(tmp_path: Path) -> None:
    """On performers that were never seen: clearly above always giving one answer, and not so without the film.

    What only the order of the frames tells is told in order, and by luck where they are shuffled.
    """
    for stage in ("prepare", "train"):
        succeed(tmp_path, stage, *EXPERIMENT)
    found = {}
    for ablation in ("none", "text_only", "first_frame", "shuffled"):
        succeed(tmp_path, "evaluate", *EXPERIMENT, "evaluation.base=false", f"evaluation.ablation={ablation}")
        newest = max(tmp_path.glob("outputs/*/*/metrics.json"), key=lambda path: path.stat().st_mtime_ns)
        found[ablation] = metrics_of(newest.parent)["metrics"]
    seeing = found["none"]
    assert over(seeing, "exercise") > 0.6 and over(seeing, "fault") > 0.3 and over(seeing, "both") > 0.5
    assert seeing["order"]["tuned"]["low"] > 0.5
    for ablation in ("text_only", "first_frame"):
        for name in ("exercise", "fault", "both"):
            assert over(found[ablation], name) <= 0.05
            assert found[ablation][name]["tuned"]["high"] < seeing[name]["tuned"]["low"]
    shuffled = found["shuffled"]["order"]["tuned"]
    assert shuffled["low"] <= 0.5 and shuffled["high"] < seeing["order"]["tuned"]["low"]


def over(metrics: Mapping[str, Any], name: str) -> float:
    """The lower end of how far a metric is above always giving the most common answer."""
    low: float = metrics[name]["over_baseline"]["low"]
    return low
