"""The fitness coach evaluated from end to end: free and constrained answers, a base on fewer rows, and the baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.runs import Run
from tests.stages import TINY, lines_of, question_rows, run_here, write_rows

DATA = ("data=fitness", "data.count=60", "data.split=[0.5,0.2,0.3]")
FEW = ("tracking=off", "hardware.threads=1", "evaluation.max_new_tokens=24", "evaluation.bootstrap=200")
ROWS, BASE_ROWS = 8, 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("coach")
    run_here(folder, "prepare", *DATA, "tracking=off")
    few = ("trainer=fit", "trainer.micro_batch_size=2", "trainer.max_steps=2", "trainer.eval_rows=2")
    return folder, run_here(folder, "train", *DATA, *TINY, *few, "trainer.packing_trial=1")


@pytest.fixture(scope="module")
def evaluation(trained: tuple[Path, Run]) -> Path:
    folder, run = trained
    some = (f"evaluation.rows={ROWS}", f"evaluation.base_rows={BASE_ROWS}", "evaluation.decoding=both")
    return run_here(folder, "evaluate", f"run={run.folder}", *FEW, *some).folder


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_the_base_answers_fewer_rows_and_texts_are_not_constrained(evaluation: Path) -> None:
    lines = lines_of(evaluation / "predictions.jsonl")
    for number, line in enumerate(lines):
        json_answer = line["meta"]["kind"] != "coaching"
        wanted = {"tuned"} | ({"tuned_constrained"} if json_answer else set())
        if number < BASE_ROWS:
            wanted |= {"base"} | ({"base_constrained"} if json_answer else set())
        assert line["answers"].keys() == wanted
        assert line["scores"]["base"]["loss"] > 0  # the loss is of all rows
        for name in wanted - {"base", "tuned"}:
            assert line["answers"][name].startswith("{")
    found = {metric["name"]: metric for metric in metrics_of(evaluation)["metrics"]}
    assert found["loss"]["difference"]["n"] == ROWS
    assert found["ended"]["tuned"]["n"] == ROWS and found["ended"]["difference"]["n"] == BASE_ROWS


def test_the_baseline_stands_beside_the_model(evaluation: Path) -> None:
    summary = metrics_of(evaluation)
    found = {metric["name"]: metric for metric in summary["metrics"]}
    changes = sum(line["meta"]["kind"] == "plan_modification" for line in lines_of(evaluation / "predictions.jsonl"))
    assert found["decision"]["baseline"]["n"] == found["decision"]["over_baseline"]["n"] == changes > 0
    difference = found["decision"]["tuned"]["value"] - found["decision"]["baseline"]["value"]
    assert found["decision"]["over_baseline"]["value"] == pytest.approx(difference)
    assert "baseline" not in found["facts"] and "decision" in summary["baseline"]["about"]


def test_the_report_tells_of_all_of_it(evaluation: Path) -> None:
    html = (evaluation / "report.html").read_text(encoding="utf-8")
    for words in ("Held to the JSON schema", "Always what most training rows say", "Packing", "times the speed"):
        assert words in html
    assert "resample whole groups" in html and f"answered the first {BASE_ROWS} rows" in html


def test_packing_is_on_record(trained: tuple[Path, Run]) -> None:
    found = trained[1].manifest()["packing"]
    assert found["fewest"] <= found["computed"] < found["tokens"] <= found["padded"]
    assert found["steps"] == 2 and found["timed_steps"] == 1
    assert found["seconds"] > 0 and found["padded_seconds"] > 0


def test_text_has_no_schema_to_be_held_to(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", question_rows(20))
    data = ("data=jsonl", f"data.path={tmp_path / 'rows.jsonl'}", "data.split=[0.6,0.2,0.2]")
    run_here(tmp_path, "prepare", *data, "tracking=off")
    run = run_here(tmp_path, "train", *data, *TINY, "trainer=fit", "trainer.max_steps=1")
    with pytest.raises(UserError, match="no answer of these rows has a JSON schema"):
        run_here(tmp_path, "evaluate", f"run={run.folder}", *FEW, "evaluation.decoding=constrained")
