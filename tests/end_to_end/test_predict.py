"""A finished run put to use: the command, the class, users' feedback on its way into the next data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.records import read_examples
from fieldtune.serving.golf import FineTunedGolfFeedbackGenerator
from fieldtune.serving.predictor import Predictor
from fieldtune.tasks.golf.swing import AREAS

from ..stages import lines_of, run_here
from .conftest import Golf

SCORES = dict.fromkeys(AREAS, 0.6) | {"balance": 0.42}
SWING: dict[str, Any] = {
    "area": "balance",
    "score": 0.42,
    "target": 0.65,
    "scores": SCORES,
    "swing_type": "power_swing",
}


def fieldtune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from fieldtune.cli import main; sys.argv[0] = 'fieldtune'; main()"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, timeout=120)


def refused(folder: Path, *words: str) -> str:
    """The one line of a command that is refused."""
    done = fieldtune(folder, *words)
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.fixture(scope="module")
def coach(golf: Golf) -> FineTunedGolfFeedbackGenerator:
    return FineTunedGolfFeedbackGenerator(golf.train.folder)


def test_predict_answers_swings_and_prompts(golf: Golf, coach: FineTunedGolfFeedbackGenerator, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    other = {"instruction": "Say something.", "input": "Anything."}
    requests.write_text(f"{json.dumps(SWING)}\n\n{json.dumps(other)}\n")
    output = tmp_path / "answers.jsonl"
    done = fieldtune(golf.folder, "predict", "run=latest", f"input={requests}", f"output={output}")
    assert done.returncode == 0 and done.stdout == f"2 answers in {output}\n", done.stderr
    lines = lines_of(output)
    assert [line["request"] for line in lines] == [SWING, other]
    assert all(isinstance(line["answer"], str) and line["ended"] is False for line in lines)
    assert lines[0]["answer"] == coach.generate_feedback("balance", 0.42, 0.65, SCORES, "power_swing")


def test_predict_prints_one_swing(golf: Golf, tmp_path: Path) -> None:
    swing = tmp_path / "swing.json"
    swing.write_text(json.dumps(SWING))
    done = fieldtune(golf.folder, "predict", f"run={golf.train.folder}", f"input={swing}", "system=base")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["request"] == SWING


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({**SWING, "area": "putting"}, "request 1: area is 'putting'; allowed: setup_quality, "),
        ({**SWING, "target": 0.4}, "request 1: target 0.4 is not above score 0.42"),
        ([SWING, {**SWING, "score": "low"}], "request 2: score is 'low'; give a number from 0 to 1"),
        ([], "must hold at least one JSON object"),
        ({"instruction": "word " * 1100}, "tokens; the model's context is 1,024, answer included"),
    ],
)
def test_a_bad_request_is_one_line(golf: Golf, tmp_path: Path, content: Any, expected: str) -> None:
    from fieldtune.predict_command import requests_of

    path = tmp_path / "request.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        Predictor(golf.train.folder).predict(requests_of(path))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_bad_requests_end_with_status_2(golf: Golf, tmp_path: Path) -> None:
    swing = tmp_path / "swing.jsonl"
    swing.write_text(json.dumps({**SWING, "swing_type": "wild"}))
    assert "swing_type is 'wild'; allowed" in refused(golf.folder, "predict", "run=latest", f"input={swing}")
    swing.write_text(json.dumps(SWING) + "\n{")
    assert "swing.jsonl:2 is not JSON" in refused(golf.folder, "predict", "run=latest", f"input={swing}")
    assert "is not a file" in refused(golf.folder, "predict", "run=latest", "input=absent.json")
    assert "run= is missing" in refused(golf.folder, "predict", f"input={swing}")
    assert "did you mean input?" in refused(golf.folder, "predict", "run=latest", "inptu=x")
    swing.write_text(json.dumps(SWING))
    assert "allowed: tuned, base" in refused(golf.folder, "predict", "run=latest", f"input={swing}", "system=both")


def test_runs_are_listed_and_shown(golf: Golf) -> None:
    done = fieldtune(golf.folder, "runs", "list")
    stages = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["finished", "prepare", "golf_gpt2"] in stages and ["finished", "evaluate", "golf_gpt2"] in stages
    (train,) = (line for line in done.stdout.splitlines() if line.split()[1] == "train")
    assert "val/best_loss" in train
    shown = fieldtune(golf.folder, "runs", "show", train.split()[3])
    assert json.loads(shown.stdout)["steps"]["done"] == 6
    assert "is not a run folder" in refused(golf.folder, "runs", "show", "nothing")
    assert "runs remove is not understood" in refused(golf.folder, "runs", "remove")


def test_an_unknown_command_names_the_nearest(golf: Golf) -> None:
    assert "did you mean predict?" in refused(golf.folder, "predcit")
    assert "fieldtune runs list" in fieldtune(golf.folder, "--help").stdout


def test_the_coach_answers_as_the_evaluation_did(golf: Golf, coach: FineTunedGolfFeedbackGenerator) -> None:
    row = next(read_examples(golf.dataset / "test.jsonl"))
    prompt, evaluated = row.prompt[0].text, lines_of(golf.evaluation.folder / "predictions.jsonl")[0]
    assert evaluated["id"] == row.id
    request = {"messages": [message.to_json() for message in row.prompt]}
    assert Predictor(golf.train.folder).predict([request])[0].text == evaluated["answers"]["tuned"]
    sampled = coach.generate(prompt, max_new_tokens=8, temperature=1.5)
    assert sampled and sampled != coach.generate(prompt, max_new_tokens=8)
    with pytest.raises(UserError, match=r"target 0\.1 is not above score 0\.42"):
        coach.generate_feedback("balance", 0.42, 0.1, SCORES)
    with pytest.raises(UserError, match="the model's context is 1,024"):
        coach.generate("word " * 1100)


def test_recorded_feedback_joins_the_next_data_set(coach: FineTunedGolfFeedbackGenerator, tmp_path: Path) -> None:
    path = tmp_path / "feedback" / "golf.jsonl"
    text = "Your balance is at 42%. Hold every finish for three seconds."
    coach.record_feedback(path, SWING, text, rating=5, user="a")
    coach.record_feedback(path, {**SWING, "target": 0.7}, "Too vague to learn from.", rating=2)
    with pytest.raises(UserError, match="rating is 6"):
        coach.record_feedback(path, SWING, "Fine.", rating=6)
    assert len(lines_of(path)) == 2
    words = ["experiment=golf_gpt2", "tracking=off", "data.count=20", f"data.feedback={path}"]
    manifest = run_here(tmp_path, "prepare", *words).manifest()
    assert sum(manifest["data"]["rows"].values()) == 21 and manifest["data"]["quarantined"] == 1
    dataset = Path(manifest["data"]["folder"])
    rows = [row for split in ("train", "val", "test") for row in lines_of(dataset / f"{split}.jsonl")]
    (kept,) = (row for row in rows if row["source"] == "feedback")
    assert kept["group"] == "feedback-user-a" and kept["messages"][-1]["content"] == text
    (dropped,) = lines_of(dataset / "quarantine.jsonl")
    assert "rating 2" in dropped["reason"] and dropped["line"] == 2
