"""The judo task: rows of frames, through prepare; scores of answers; labels, baseline and prompts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import ConfigError
from fieldtune.records import Example, Media, RecordError, Rejected, example_from_json, file_sha256
from fieldtune.tasks.judo.config import Data
from fieldtune.tasks.judo.rows import ERRORS_SCHEMA
from fieldtune.tasks.judo.task import TASK
from tests.stages import lines_of, run_here
from tests.tasks.judo.pictures import write_folder, write_frame

THREE = ("seoi-nage", "tai_otoshi", "none")
ERROR = {"error_type": "Entry too wide", "severity": "moderate", "description": "Left foot too far from uke's feet."}


def described(folder: Path, **said: Any) -> list[Example | Rejected]:
    write_frame(folder / "clip.png", 1)
    item = {"image": "clip.png", "technique": "seoi nage", **said}
    (folder / "error_examples.jsonl").write_text(json.dumps(item))
    return list(TASK.examples(Data(frames=str(folder)), 0))


def examples(folder: Path, **said: Any) -> list[Example]:
    found = [item for item in described(folder, **said) if isinstance(item, Example)]
    assert found
    return found


def test_a_frame_is_a_row_with_its_picture(tmp_path: Path) -> None:
    (row,) = examples(tmp_path)
    picture = tmp_path / "clip.png"
    assert row.media == (Media("image", str(picture), file_sha256(picture)),)
    assert [message.role for message in row.messages] == ["system", "user", "assistant"]
    assert row.answer == "seoi-nage" and row.meta["technique"] == "seoi-nage" and row.meta["category"] == "tachi-waza"
    assert (row.id, row.group) == ("clip.png", "clip.png")
    assert example_from_json(json.loads(json.dumps(row.to_json()))) == row


def test_described_errors_are_a_second_row(tmp_path: Path) -> None:
    first, second = examples(tmp_path, errors=[ERROR], correct_aspects=["grip is correct"], performer="anna")
    assert first.group == second.group == "anna" and first.media == second.media
    assert first.messages[0] == second.messages[0] and first.prompt[1].parts[0] == second.prompt[1].parts[0]
    said = json.loads(second.answer)
    assert said == {"errors": [{**ERROR, "error_type": "entry_too_wide"}], "correct_aspects": ["grip is correct"]}
    assert TASK.answer_schema(second) == ERRORS_SCHEMA and TASK.answer_schema(first) is None
    assert said.keys() == set(ERRORS_SCHEMA["required"])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"errors": "none"}, "'errors' must be a list"),
        ({"errors": ["wide"]}, "'errors' must be a list"),
        ({"errors": [{**ERROR, "severity": "awful"}]}, "severity 'awful' is unknown; allowed: minor, moderate, crit"),
        ({"errors": [{"severity": "minor"}]}, "must have the texts"),
        ({"errors": [], "correct_aspects": "grip"}, "'correct_aspects' must be a list of texts"),
        ({"errors": [ERROR], "technique": "none"}, "'errors' are given for no technique"),
    ],
)
def test_a_broken_description_is_put_aside(tmp_path: Path, said: dict[str, Any], reason: str) -> None:
    (item,) = described(tmp_path, **said)
    assert isinstance(item, Rejected) and reason in item.reason
    assert item.path.endswith("error_examples.jsonl") and item.line == 1


def test_few_frames_and_frames_of_nobody_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, ("seoi-nage",))
    write_frame(tmp_path / "o-goshi" / "1.png", 999)
    with caplog.at_level(logging.WARNING, "fieldtune"):
        assert len(list(TASK.examples(Data(frames=str(tmp_path)), 0))) == 11
    assert "fewer than 10 frames: o-goshi 1" in caplog.text and "seoi" not in caplog.text
    assert "1 of 11 frames have no performer or video" in caplog.text


def test_prepare_splits_by_performer(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", THREE, performers=6, each=4)
    words = ("data=judo", f"data.frames={folder}", "data.split=[0.5,0.25,0.25]", "tracking=off")
    facts = run_here(tmp_path, "prepare", *words).manifest()["data"]
    dataset = Path(facts["folder"])
    splits = {split: lines_of(dataset / f"{split}.jsonl") for split in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == 72 and facts["quarantined"] == 0
    # One question for all pictures does not make them near-duplicates; a performer is in one split.
    assert all({row["meta"]["technique"] for row in rows} == {"seoi-nage", "tai-otoshi", "no technique"}
               for rows in splits.values())  # fmt: skip
    groups = [{row["group"] for row in rows} for rows in splits.values()]
    assert set.union(*groups) == {f"p{number}" for number in range(6)}
    assert sum(map(len, groups)) == 6 and facts["near_duplicates"]["groups"] == 0
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert manifest["counts"]["technique"] == {"no technique": 24, "seoi-nage": 24, "tai-otoshi": 24}
    assert "[image " in (dataset / "preview.html").read_text(encoding="utf-8")


def test_a_picture_under_two_names_is_in_one_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", ("seoi-nage", "o-goshi"), performers=6)
    for number in range(6):
        frame = folder / "seoi-nage" / f"p{number}__000.png"
        (folder / "seoi-nage" / f"copy{number}__0.png").write_bytes(frame.read_bytes())
    words = ("data=judo", f"data.frames={folder}", "data.split=[0.5,0.25,0.25]", "tracking=off")
    facts = run_here(tmp_path, "prepare", *words).manifest()["data"]
    assert facts["near_duplicates"]["groups"] == 6 and facts["near_duplicates"]["straddling"] == 0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.frames=/no/frames does not exist"):
        run_here(tmp_path, "prepare", "data=judo", "data.frames=/no/frames", "tracking=off")


def test_scores_of_a_technique(tmp_path: Path) -> None:
    (row,) = examples(tmp_path)
    for answer, value in (("seoi-nage", 1.0), ("Seoi nage.", 1.0), ("tai-otoshi", 0.0), ("It is seoi-nage", 0.0)):
        score = TASK.score(row, answer)
        assert score.values["technique"] == value and score.values["error_found"] is None
        assert bool(score.checks) == (value == 0.0)


@pytest.mark.parametrize(
    ("answer", "found", "f1"),
    [
        ({"errors": [ERROR], "correct_aspects": []}, 1.0, 1.0),
        ({"errors": [ERROR, {"error_type": "late"}]}, 1.0, 2 / 3),
        ({"errors": [{"error_type": "late"}]}, 1.0, 0.0),
        ({"errors": []}, 0.0, 0.0),
        ({"error": []}, 0.0, 0.0),
        ({"errors": [3]}, 0.0, 0.0),
        ("entry too wide", 0.0, 0.0),
    ],
)
def test_scores_of_errors(tmp_path: Path, answer: Any, found: float, f1: float) -> None:
    _, row = examples(tmp_path, errors=[ERROR])
    score = TASK.score(row, answer if isinstance(answer, str) else json.dumps(answer))
    assert score.values == {"technique": None, "error_found": found, "error_types": pytest.approx(f1)}
    assert bool(score.checks) == (f1 < 1)


def test_nothing_wrong_is_an_answer_too(tmp_path: Path) -> None:
    _, row = examples(tmp_path, errors=[])
    assert TASK.score(row, '{"errors": []}').values["error_types"] == 1.0
    assert TASK.score(row, json.dumps({"errors": [ERROR]})).values == {
        "technique": None, "error_found": 0.0, "error_types": 0.0,
    }  # fmt: skip


def test_labels_and_the_most_common_technique(tmp_path: Path) -> None:
    write_folder(tmp_path, ("tai-otoshi",), performers=1)
    rows = examples(tmp_path, errors=[ERROR])
    labels, rule = TASK.labels(Data(frames=""), rows), TASK.baseline(rows)
    assert labels is not None and list(labels.names) == ["seoi-nage", "tai-otoshi"]
    assert rule is not None and rule.about == "Always tai-otoshi, and that something is wrong."
    for row in rows:
        of_errors = row.meta["kind"] == "errors"
        assert labels.of(row) == (None if of_errors else row.meta["technique"])
        assert rule.score(row) == (
            {"error_found": 1.0} if of_errors else {"technique": float(row.answer == "tai-otoshi")}
        )
    assert TASK.labels(Data(frames=""), rows[:1]) is None and TASK.baseline([]) is None


def test_prompts_of_requests(tmp_path: Path) -> None:
    data = Data(frames="")
    asked = TASK.prompt({"image": "new.png"}, data)
    assert asked[-1].media == (Media("image", "new.png"),) and "Which judo technique" in asked[-1].text
    wrong = TASK.prompt({"image": "new.png", "technique": "O Goshi"}, data)
    assert "shows o-goshi" in wrong[-1].text
    assert TASK.prompt({"prompt": "What is kuzushi?"}, data)[-1].text == "What is kuzushi?"
    with pytest.raises(RecordError, match="nearest is 'o-goshi'"):
        TASK.prompt({"image": "new.png", "technique": "o-goshy"}, data)
    with pytest.raises(RecordError, match="path of a picture"):
        TASK.prompt({"image": 3}, data)


def test_rendered_stills_are_frames_with_their_performers(tmp_path: Path) -> None:
    words = ("data=judo_stills", "data.count=48", "tracking=off")
    run = run_here(tmp_path, "prepare", *words)
    facts = run.manifest()["data"]
    rows = [row for split in ("train", "val", "test") for row in lines_of(Path(facts["folder"]) / f"{split}.jsonl")]
    assert len(rows) == 48 and len({row["group"] for row in rows}) == 6
    assert {row["meta"]["category"] for row in rows} == {"tachi-waza"}
    performers = [
        {row["group"] for row in lines_of(Path(facts["folder"]) / f"{split}.jsonl")} for split in ("train", "test")
    ]
    assert performers[0] and performers[1] and not performers[0] & performers[1]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("data=judo",), "data=judo needs data.frames=FOLDER"),
        (("data=judo_stills", "data.frames=."), "frames are read or rendered; give one"),
        (("data=judo_stills", "data.stills=null"), "needs data.stills=FOLDER"),
    ],
)
def test_frames_are_read_or_rendered(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run_here(tmp_path, "prepare", *words, "tracking=off")
