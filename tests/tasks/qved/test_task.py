"""prepare.py on exercise films: read and rendered, exported, picked up by a mixture."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fieldtune import tasks
from fieldtune.checks import check
from fieldtune.errors import ConfigError, UserError
from fieldtune.file_check import check_file
from fieldtune.records import SPLITS, RecordError, read_examples
from fieldtune.tasks.qved.config import Data
from fieldtune.tasks.qved.task import TASK
from tests.commands import compose
from tests.stages import lines_of, question_rows, run_here, write_rows

from .films import entry, film, labels


def prepared(folder: Path, *words: str) -> tuple[Path, dict[str, Any]]:
    facts = run_here(folder, "prepare", "tracking=off", *words).manifest()["data"]
    dataset = Path(facts["folder"])
    return dataset, json.loads((dataset / "manifest.json").read_text())


def qevd(folder: Path, films: int = 48) -> Path:
    """Labels and films, six of each person, one film missing."""
    rows = [
        entry(
            number, f"{('squat', 'cat-cow')[number % 2]} - {('fast', 'slow')[number % 3 == 0]}", worker_id=number // 6
        )
        for number in range(films)
    ]
    for number in range(1, films):
        film(folder / "videos" / f"{number:08d}.mp4")
    return labels(folder, rows)


def test_labels_and_a_folder_of_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = qevd(tmp_path)
    words = ["data=qved", f"data.labels={path}", f"data.videos={tmp_path / 'videos'}", "data.split=[0.5,0.25,0.25]"]
    dataset, manifest = prepared(tmp_path, *words)
    said = capsys.readouterr().out
    assert f"{path}:1 is left out: item 1: the video ./00000000.mp4 is not there" in said
    assert "the split keeps 8 persons together" in said
    assert manifest["quarantined"] == 1 and sum(manifest["rows"].values()) == 47
    assert manifest["counts"]["exercise"] == {"cat-cow": 24, "squat": 23}
    rows = {split: list(read_examples(dataset / f"{split}.jsonl")) for split in SPLITS}
    persons = [{row.group for row in rows[split]} for split in SPLITS]
    assert len(set.union(*persons)) == sum(map(len, persons)) == 8  # nobody is in two splits
    # The same answer to the same question on 47 films is 47 rows: only a film that is there twice is a near-duplicate.
    assert manifest["near_duplicates"]["groups"] == 0
    for split in SPLITS:
        exported = json.loads((dataset / f"qved_{split}.json").read_text())
        assert [row["id"] for row in exported] == [row.id for row in rows[split]]
        for row, example in zip(exported, rows[split], strict=True):
            assert row["video"] == example.media[0].path and row["group"] == example.group
            assert [turn["from"] for turn in row["conversations"]] == ["system", "human", "gpt"]
            assert row["conversations"][1]["value"].startswith("<video>\n")
            assert row["conversations"][2]["value"] == example.answer
    assert "qved_train.json" in manifest["sha256"]
    assert "[video " in (dataset / "preview.html").read_text()


def test_the_same_film_twice_stays_in_one_split(tmp_path: Path) -> None:
    path = qevd(tmp_path)
    rows = json.loads(path.read_text())
    for row in rows:
        del row["worker_id"]
    for number in range(2, 40, 2):
        shutil.copy(tmp_path / "videos" / f"{number:08d}.mp4", tmp_path / "videos" / f"{number + 1:08d}.mp4")
    labels(tmp_path, rows)
    _, manifest = prepared(tmp_path, "data=qved", f"data.labels={path}", f"data.videos={tmp_path / 'videos'}")
    assert (manifest["near_duplicates"]["groups"], manifest["near_duplicates"]["rows_in_groups"]) == (19, 38)


def test_rendered_films_take_the_same_way(tmp_path: Path) -> None:
    pytest.importorskip("av")
    words = ["data=qved_films", "data.count=34", "data.split=[0.6,0.2,0.2]"]
    dataset, manifest = prepared(tmp_path, *words)
    assert sum(manifest["rows"].values()) == 34 and manifest["quarantined"] == 0
    assert len(manifest["counts"]["exercise"]) == 7 and len(manifest["counts"]["label"]) == 17
    rows = [row for split in SPLITS for row in read_examples(dataset / f"{split}.jsonl")]
    assert len({row.group for row in rows}) == 5 and all(Path(row.media[0].path).is_file() for row in rows)
    assert all(TASK.score(row, row.answer).values["both"] == 1 for row in rows)
    ordered = {row.meta["label"]: row.meta["backward"] for row in rows if "backward" in row.meta}
    assert len(ordered) == 4 and all(ordered[ordered[label]] == label != ordered[label] for label in ordered)
    again, _ = prepared(tmp_path, *words)
    assert again == dataset  # the same words give the same data set


def test_a_mixture_picks_the_export_up_when_it_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = write_rows(tmp_path / "mine.jsonl", question_rows(60))
    joins = tmp_path / "MobileGPT" / "qved_train.json"
    part = f"data.mixture=[{{name: qved_train, path: {joins}, optional: true}}]"
    words = ["data=jsonl", f"data.path={mine}", "data.split=[0.6,0.2,0.2]", part]
    _, manifest = prepared(tmp_path, *words)
    assert sum(manifest["rows"].values()) == 60
    assert f"mixture: qved_train is not there ({joins})" in capsys.readouterr().out
    path = qevd(tmp_path)
    dataset, _ = prepared(tmp_path, "data=qved", f"data.labels={path}", f"data.videos={tmp_path / 'videos'}")
    joins.parent.mkdir()
    shutil.copy(dataset / "qved_train.json", joins)
    capsys.readouterr()
    mixed, manifest = prepared(tmp_path, *words)
    assert f"mixture: qved_train joins ({joins})" in capsys.readouterr().out
    rows = [row for split in SPLITS for row in read_examples(mixed / f"{split}.jsonl")]
    films = [row for row in rows if row.source == "qved_train"]
    assert films and all(row.media and row.group.startswith("qved_train/qved-worker-") for row in films)
    assert films[0].messages[1].texts[0].startswith("Please evaluate the exercise")


def test_the_mobilegpt_choice_reads_its_own_rows(tmp_path: Path) -> None:
    path = qevd(tmp_path)
    dataset, _ = prepared(tmp_path, "data=qved", f"data.labels={path}", f"data.videos={tmp_path / 'videos'}")
    _mixed, manifest = prepared(tmp_path, "data=mobilegpt", f"data.path={dataset / 'qved_train.json'}")
    assert manifest["quarantined"] == 0 and sum(manifest["rows"].values()) == len(lines_of(dataset / "train.jsonl"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["data=qved"], "data=qved needs data.labels=FILE"),
        (["data=qved", "data.labels=gone.json"], "data.labels=gone.json does not exist"),
        (["data=qved", "data.labels={here}", "data.videos=gone"], "data.videos=gone does not exist"),
        (["data=qved_films", "data.labels={here}"], "films are read or rendered; give one"),
        (["data=qved_films", "data.films=null"], "data.count=1360 needs data.films=FOLDER"),
        (["data=qved_films", "data.user_prompt=' '"], "data.user_prompt is empty"),
        (["data=qved_films", "data.videos_per_class=0"], "data.videos_per_class=0 is out of range"),
        (["data=qved_films", "data.count=1"], "data.count=1 is out of range"),
    ],
)
def test_words_that_cannot_be_are_refused(tmp_path: Path, words: list[str], problem: str) -> None:
    here = labels(tmp_path, [entry(1)])
    with pytest.raises(ConfigError) as caught:
        check(compose("prepare", *(word.format(here=here) for word in words)), "prepare")
    assert len(caught.value.problems) == 1 and problem in caught.value.problems[0]


def test_prompts_of_requests(tmp_path: Path) -> None:
    video = film(tmp_path / "1.mp4")
    system, user = TASK.prompt({"video": str(video)}, Data())
    assert system.role == "system" and user.media[0].path == str(video.resolve()) and user.text == Data().user_prompt
    asked = Data(system_prompt="", user_prompt="How is this {exercise}?")
    (user,) = TASK.prompt({"video": str(video), "exercise": "cat-cow"}, asked)
    assert user.texts == ("How is this cat-cow?",)
    with pytest.raises(RecordError, match="give 'exercise' beside 'video'"):
        TASK.prompt({"video": str(video)}, asked)
    with pytest.raises(RecordError, match=r"gone\.mp4 is not there"):
        TASK.prompt({"video": "gone.mp4"}, Data())
    assert TASK.prompt({"prompt": "How do I squat?"}, Data())[0].text == "How do I squat?"


def test_it_is_the_task_of_its_name() -> None:
    assert tasks.get("qved") is TASK and tasks.data_schema("qved") is Data
    assert TASK.result_name() == "exercise-coach"
    assert TASK.answer_schema(None) is None  # type: ignore[arg-type]


def test_validate_knows_label_files(tmp_path: Path) -> None:
    rows = [entry(1), {"video_path": "2.mp4"}, {"video_path": "3.mp4", "worker_id": 4}]
    report = check_file(labels(tmp_path, rows))
    assert report.rows == 3 and len(report.problems) == 1
    assert "there is nothing to learn" in report.problems[0]


def test_no_torch_and_no_pillow_is_imported(root: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'src')\nfrom fieldtune.tasks.qved.task import TASK\n"
        "assert not {'torch', 'transformers', 'PIL', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_no_film_of_an_exercise_is_one_line(tmp_path: Path) -> None:
    path = qevd(tmp_path)
    words = ["data=qved", f"data.labels={path}", f"data.videos={tmp_path / 'videos'}", "data.exercises=[plank]"]
    with pytest.raises(UserError, match="'plank', which no film shows; there are: cat-cow, squat"):
        prepared(tmp_path, *words)
