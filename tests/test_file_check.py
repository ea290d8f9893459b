"""`fieldtune validate`: every form of data, each slip with file, line and field, and the exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.file_check import check_file
from fieldtune.tasks.golf.swing import AREAS
from tests.commands import environment
from tests.stages import run_here
from tests.tasks.fitness.cases import CHANGE, CONTEXT, WEEK, changed

CHAT = {"messages": [{"role": "user", "content": "Which grip?"}, {"role": "assistant", "content": "Overlapping."}]}
ALPACA = {"instruction": "Which grip?", "output": "Overlapping."}
SWING = {
    "area": "balance",
    "score": 0.4,
    "target": 0.6,
    "scores": dict.fromkeys(AREAS, 0.4),
    "swing_type": "power_swing",
}
RIGHT: dict[str, Any] = {
    "chat.jsonl": [CHAT, {**CHAT, "id": "x"}],
    "share.jsonl": [{"conversations": [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This."}]}],
    "alpaca.jsonl": [ALPACA],
    "alpaca.json": [ALPACA, CHAT],
    "feedback.jsonl": [
        {"swing": {**SWING, "scores": {**SWING["scores"]}}, "feedback": "Hold the finish.", "rating": 2}
    ],
    "change.json": CHANGE,
    "week.json": WEEK,
    "context.json": CONTEXT,
    "pair.json": {"context": CONTEXT, "feedback": "I am tired.", "answer": CHANGE},
    "questions.csv": "question,answer\nWhich grip?,Overlapping.\n",
    "log.csv": "date,sport,minutes\n2026-03-04,running,40\n",
}


def write(path: Path, value: Any) -> Path:
    if isinstance(value, str):
        text = value
    elif path.suffix == ".jsonl":
        text = "".join(json.dumps(row) + "\n" for row in value)
    else:
        text = json.dumps(value, indent=2)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(tmp_path: Path, name: str) -> None:
    report = check_file(write(tmp_path / name, RIGHT[name]))
    assert report.problems == [] and report.rows >= 1


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("a.jsonl", [CHAT, {"messages": []}], ":2: 'messages' must be a non-empty list"),
        ("a.jsonl", '{"messages": 1\n', ":1: not JSON"),
        ("a.jsonl", '{"a": 1, "a": 2}\n', ":1: the key 'a' is given twice"),
        ("a.jsonl", "[1]\n", ":1: given list; allowed: a JSON object"),
        ("a.jsonl", [{**CHAT, "id": "x"}, {**CHAT, "id": "x"}], ":2: id: given 'x' again"),
        ("a.jsonl", [{"speech": 1}], ":1: unknown form (keys: speech)"),
        ("a.jsonl", [{"swing": {**SWING, "target": 0.1}, "feedback": "x"}], ":1: target 0.1 is not above score 0.4"),
        ("a.json", [ALPACA, {"instruction": "x", "output": 3}], ":6: [1]: 'output' must be a text"),
        ("a.json", changed(WEEK, "plan_summary.total_tss", 1), ":4: plan_summary.total_tss: given 1; allowed: 158"),
        ("a.json", changed(CONTEXT, "current_metrics.weekly_tss", -1), ": current_metrics.weekly_tss: given -1"),
        ("a.json", {"context": CONTEXT, "answer": changed(CHANGE, "modifications.0.workout_id", "w7")}, "w1, w2"),
        ("a.json", {"context": CONTEXT, "feedback": "I fainted.", "answer": CHANGE}, "warning_signs"),
        ("a.json", {"context": CONTEXT, "answer": 5}, "answer: given neither a plan change nor a weekly plan"),
        ("a.json", '{"decision": NaN}', ":1: given NaN; allowed: finite numbers"),
        ("a.csv", "question,answer\n,Overlapping.\n", ":2: 'question' is empty"),
        ("a.csv", "date,sport,minutes\nyesterday,running,40\n", ":2: date: given 'yesterday'; allowed: a date"),
        ("a.jsonl", "", ":1: given no row; allowed: at least one"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, name: str, value: Any, told: str) -> None:
    path = write(tmp_path / name, value)
    problems = check_file(path).problems
    assert any(told in problem and problem.startswith(f"{path}:") for problem in problems), problems


def test_a_fit_file_is_read(tmp_path: Path) -> None:
    pytest.importorskip("fitdecode")
    path = tmp_path / "ride.fit"
    path.write_bytes(b"no activity")
    assert "not a whole FIT file" in check_file(path).problems[0]


def test_a_changed_data_set_is_told(tmp_path: Path) -> None:
    run = run_here(tmp_path, "prepare", "data=golf", "data.count=12", "tracking=off")
    folder = Path(run.manifest()["data"]["folder"])
    assert check_file(folder).problems == []
    train = folder / "train.jsonl"
    train.write_text(train.read_text(encoding="utf-8").replace("role", "rule", 1), encoding="utf-8")
    first, last = check_file(folder).problems
    assert first.startswith(f"{train}:1: ") and "sha256" in last


@pytest.mark.parametrize("name", ["missing.jsonl", "notes.txt", "."])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        check_file(tmp_path / name)
    assert ("\n" not in str(caught.value) and "give" in str(caught.value)) or "allowed" in str(caught.value)


def test_the_command_and_its_status(tmp_path: Path) -> None:
    right, wrong = write(tmp_path / "right.jsonl", [CHAT]), write(tmp_path / "wrong.jsonl", [{}])
    done = [command(str(right)), command(str(right), str(wrong)), command()]
    assert [item.returncode for item in done] == [0, 2, 2]
    assert done[0].stdout == f"{right}: 1 rows, nothing is wrong\n"
    assert f"{wrong}:1: unknown form" in done[1].stdout and done[1].stderr == "1 problems\n"
    assert "validate needs a file" in done[2].stderr


def command(*words: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "fieldtune.cli", "validate", *words]
    return subprocess.run(call, env=environment(), capture_output=True, text=True, timeout=120)
