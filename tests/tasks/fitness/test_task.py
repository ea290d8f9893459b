"""The task as the stages see it, the pages made of the schema, and rows that users bring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fieldtune.file_check import check_file
from fieldtune.records import Example, RecordError, Rejected, write_jsonl
from fieldtune.tasks.fitness import documents, prompt
from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.conversations import read_conversations
from fieldtune.tasks.fitness.generate import generate
from fieldtune.tasks.fitness.task import FILES, TASK
from tests.stages import lines_of, run_here
from tests.tasks.fitness.cases import CHANGE, CONTEXT, changed

ROWS = list(generate(Data(count=30), 3))


@pytest.mark.parametrize("place", [place for place, _ in documents.documents()])
def test_the_documents_are_what_the_generator_writes(root: Path, place: str) -> None:
    text = dict(documents.documents())[place]
    told = "run: python -m fieldtune.tasks.fitness.documents docs"
    assert (root / "docs" / place).read_text(encoding="utf-8") == text, told


def test_the_example_files_are_valid(root: Path) -> None:
    for name in FILES.values():
        report = check_file(root / "docs" / documents.FOLDER / name)
        assert report.rows == documents.SHOWN and report.problems == []


def test_the_system_text_is_one_and_names_the_schema() -> None:
    assert {row.messages[0].text for row in ROWS} == {prompt.system_prompt()}
    for word in ('"athlete_message":text', '"modifications":[', "below -30 overreached", "no_change"):
        assert word in prompt.system_prompt()


def test_prepare_splits_by_athlete_and_exports(tmp_path: Path) -> None:
    run = run_here(tmp_path, "prepare", "experiment=fitness_qlora", "data.count=120", "tracking=off")
    folder = Path(run.manifest()["data"]["folder"])
    groups = {name: {row["group"] for row in lines_of(folder / f"{name}.jsonl")} for name in ("train", "val", "test")}
    assert sum(map(len, groups.values())) == 30 == len(set().union(*groups.values()))
    assert run.manifest()["data"]["quarantined"] == 0
    kinds = {name: len(lines_of(folder / name)) for name in FILES.values()}
    assert sum(kinds.values()) == len(lines_of(folder / "train.jsonl")) and all(kinds.values())
    assert check_file(folder).problems == []


def test_a_request_becomes_the_prompt_of_training() -> None:
    row = next(row for row in ROWS if row.meta["kind"] == "plan_modification")
    text = row.messages[1].text
    request = {
        "context": json.loads(prompt.context_of(text) or ""),
        "feedback": prompt.words_of(text).split("\n", 1)[1],
    }
    assert TASK.prompt(request, Data()) == row.prompt
    with pytest.raises(RecordError, match="give 'feedback', 'goals'"):
        TASK.prompt({"context": request["context"]}, Data())
    with pytest.raises(RecordError, match=r"context\.today: given nothing"):
        TASK.prompt({"context": {}, "feedback": "x"}, Data())
    assert TASK.prompt({"prompt": "Hello"}, Data())[0].text == "Hello"


def test_conversations_join_if_they_are_right(tmp_path: Path) -> None:
    right = {"messages": [turn.to_json() for turn in ROWS[0].messages]}
    blocks = [(prompt.FEEDBACK, "My knee hurts.")]
    told = ("context", json.dumps(CONTEXT))
    asked = {"role": "user", "content": f"{prompt.CONTEXT}\n{told[1]}\n\n{blocks[0][0]}\n{blocks[0][1]}"}
    unsafe = {"messages": [asked, {"role": "assistant", "content": json.dumps(CHANGE)}]}
    free = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, shall we train?"}]}
    bad = {"messages": [{"role": "user", "content": "I fainted."}, {"role": "assistant", "content": "Never mind."}]}
    path = tmp_path / "mine.jsonl"
    write_jsonl(path, [right, unsafe, free, bad])
    found = list(read_conversations(path))
    assert [isinstance(item, Example) for item in found] == [True, False, True, False]
    reasons = [item.reason for item in found if isinstance(item, Rejected)]
    assert "answer.w1: hurt: given no easy workout" in reasons[0]
    assert "warning_signs" in reasons[1]


def test_a_plan_change_on_disk_is_checked_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "change.json"
    path.write_text(json.dumps(changed(CHANGE, "modifications.0.changes.estimated_tss.to", 90), indent=2), "utf-8")
    text = path.read_text(encoding="utf-8").splitlines()
    (problem,) = check_file(path).problems
    line = next(number for number, words in enumerate(text, 1) if '"to": 90' in words)
    told = "modifications[0].changes.estimated_tss.to: given 90; allowed: TSS goes where the duration goes"
    assert problem == f"{path}:{line}: {told}"
