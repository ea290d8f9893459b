from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.records import Example, Rejected
from fieldtune.tasks.golf.config import Data, Form
from fieldtune.tasks.golf.feedback import append_feedback
from fieldtune.tasks.golf.swing import AREAS, Swing, swing_prompt
from fieldtune.tasks.golf.task import TASK

SWING = Swing("balance", 0.42, 0.65, {**dict.fromkeys(AREAS, 0.5), "balance": 0.42}, "power_swing")


def examples(path: Path) -> list[Example | Rejected]:
    return list(TASK.examples(Data(count=0, form=Form.short, feedback=str(path)), 1))


def test_what_is_appended_joins_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "feedback.jsonl"
    append_feedback(path, SWING, "Stand tall.\nHold it.", rating=5, user="ann")
    append_feedback(path, SWING, "Hold the finish.")
    first, second = examples(path)
    assert isinstance(first, Example) and isinstance(second, Example)
    assert (first.source, first.group, first.answer) == ("feedback", "feedback-user-ann", "Stand tall.\nHold it.")
    assert first.prompt[0].parts == swing_prompt(SWING, Form.short)
    assert second.group == second.id == "feedback-000002"
    assert (first.meta["area"], first.meta["band"]) == ("balance", "moderate")


def test_generated_rows_come_first(tmp_path: Path) -> None:
    append_feedback(tmp_path / "f.jsonl", SWING, "Hold the finish.")
    rows = list(TASK.examples(Data(count=3, feedback=str(tmp_path / "f.jsonl")), 1))
    assert [row.source for row in rows if isinstance(row, Example)] == ["golf"] * 3 + ["feedback"]


def test_bad_lines_are_rejected_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    good: dict[str, Any] = {"swing": SWING.to_json(), "feedback": "Hold the finish."}
    lines = [
        json.dumps({**good, "rating": 3}).encode(),
        b"{broken",
        b"\xff\xfe",
        b"",
        b"[]",
        json.dumps({**good, "feedback": " "}).encode(),
        json.dumps({**good, "rating": 9}).encode(),
        json.dumps({**good, "user": 7}).encode(),
        json.dumps({**good, "swing": {**SWING.to_json(), "target": 0.1}}).encode(),
        json.dumps({**good, "feedback": "\ud800"}).encode(),
        json.dumps({**good, "rating": 4}).encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    *rejected, kept = examples(path)
    assert isinstance(kept, Example)
    found = [(row.line, row.reason) for row in rejected if isinstance(row, Rejected)]
    wanted = [
        (1, "rating 3: only feedback rated 4 or 5"),
        (2, "not JSON"),
        (3, "not UTF-8"),
        (5, "a feedback line is an object"),
        (6, "feedback is empty"),
        (7, "rating is 9; give a whole number from 1 to 5"),
        (8, "user is 7"),
        (9, "target 0.1 is not above score 0.42"),
        (10, "lone surrogate"),
    ]
    assert [line for line, _ in found] == [line for line, _ in wanted]
    assert all(reason in said for (_, said), (_, reason) in zip(found, wanted, strict=True))


def test_a_last_line_without_an_end_is_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    path.write_text('{"half": ')
    append_feedback(path, SWING, "Hold the finish.")
    assert [type(row) for row in examples(path)] == [Rejected, Example]


def append_many(path: Path, name: str) -> None:
    for number in range(40):
        append_feedback(path, SWING, f"{name} {number} " * 300, user=name)


def test_two_programs_may_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    processes = [get_context("fork").Process(target=append_many, args=(path, name)) for name in ("ann", "bob")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    rows = examples(path)
    assert len(rows) == 80
    assert all(isinstance(row, Example) for row in rows)


@pytest.mark.parametrize(
    ("feedback", "rating", "message"),
    [(" ", None, "feedback is empty"), ("x" * 20_001, None, "at most 20,000"), ("fine", 0, "rating is 0")],
)
def test_nothing_is_written_for_bad_feedback(tmp_path: Path, feedback: str, rating: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        append_feedback(tmp_path / "feedback.jsonl", SWING, feedback, rating=rating)
    assert not (tmp_path / "feedback.jsonl").exists()


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.feedback=.* cannot be read"):
        examples(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="cannot be written"):
        append_feedback(tmp_path, SWING, "Hold the finish.")
