"""Label files in every spelling, films in every place, classes thinned, persons kept together."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.records import file_sha256
from fieldtune.tasks.qved.config import SYSTEM_PROMPT, USER_PROMPT

from .films import entry, film, labels, read


def test_an_entry_becomes_three_turns(tmp_path: Path) -> None:
    path = labels(tmp_path, [entry(7, labels_descriptive=["squat - User stays high.", "squat - Go lower."])])
    video = film(tmp_path / "00000007.mp4")
    (example,), refused = read(path)
    assert not refused and example.id == "qved-000001" and example.group == example.id and example.source == "qved"
    assert [(turn.role, turn.texts) for turn in example.messages] == [
        ("system", (SYSTEM_PROMPT,)),
        ("user", (USER_PROMPT,)),
        ("assistant", ("squat - User stays high.\nsquat - Go lower.",)),
    ]
    (media,) = example.media
    assert example.messages[1].parts[0] == media
    assert (media.kind, media.path, media.sha256) == ("video", str(video.resolve()), file_sha256(video))
    assert (example.meta["exercise"], example.meta["fault"]) == ("squat", "shallow depth")


@pytest.mark.parametrize(
    ("facts", "answer"),
    [
        ({"labels_descriptive": "Too high.", "labels": ["squat - shallow"]}, "Too high."),
        ({"labels-descriptive": ["Too high."], "labels": ["squat - shallow"]}, "Too high."),
        ({"Labels_Descriptive": [], "labels": ["squat - shallow", "squat - fast"]}, "squat - shallow"),
        ({"labels_descriptive": None, "label": "squat - shallow"}, "squat - shallow"),
        ({"exercise": "squat", "feedbacks": ["Lower.", "Good!"]}, "Lower.\nGood!"),
        ({"metadata": {"exercise": "Squat"}, "feedback": "Lower."}, "Lower."),
    ],
)
def test_what_is_learned_in_every_spelling(tmp_path: Path, facts: dict[str, Any], answer: str) -> None:
    film(tmp_path / "1.mp4")
    (example,), _ = read(labels(tmp_path, [{"video_path": "1.mp4", **facts}]))
    assert example.answer == answer and example.meta["exercise"] == "squat"


@pytest.mark.parametrize("name", ["video_path", "video-path", "video", "Video_File"])
def test_the_film_in_every_spelling(tmp_path: Path, name: str) -> None:
    film(tmp_path / "1.mp4")
    (example,), _ = read(labels(tmp_path, [{name: "1.mp4", "labels": ["squat - fast"]}]))
    assert example.meta["fault"] == "fast"


def test_roots_of_a_label_file(tmp_path: Path) -> None:
    film(tmp_path / "1.mp4")
    roots = [
        [{"video_path": "1.mp4", "labels": ["squat - fast"]}],
        {"version": 2, "annotations": [{"video_path": "1.mp4", "labels": ["squat - fast"]}]},
        {"1.mp4": {"labels": ["squat - fast"]}},
        {"1.mp4": ["squat - fast"]},
        {"./1.mp4": "squat - fast"},
    ]
    answers = [read(labels(tmp_path, root))[0][0].answer for root in roots]
    assert answers == ["squat - fast"] * len(roots)


@pytest.mark.parametrize(
    ("path", "facts", "exercise", "fault"),
    [
        ("lunge/1.mp4", {"labels": ["squat - fast"], "exercise": "burpee"}, "burpee", "fast"),
        ("lunge/1.mp4", {"labels": ["squat - fast"]}, "squat", "fast"),
        ("lunge/1.mp4", {"labels": ["fast"]}, "lunge", "fast"),
        ("00012_cat-cow_003.mp4", {"labels": ["back stays flat"]}, "cat-cow", "back stays flat"),
        ("cat-cow/1.mp4", {"labels": ["cat-cow"]}, "cat-cow", ""),
        ("00000001.mp4", {"labels": ["cat-cow"]}, "cat-cow", ""),
        ("00000001.mp4", {"labels_descriptive": "cat-cow pose - The back is flat."}, "cat-cow pose", ""),
    ],
)
def test_the_exercise_by_metadata_label_or_path(
    tmp_path: Path, path: str, facts: dict[str, Any], exercise: str, fault: str
) -> None:
    film(tmp_path / path)
    (example,), _ = read(labels(tmp_path, [{"video_path": path, **facts}]))
    assert (example.meta["exercise"], example.meta["fault"]) == (exercise, fault)


def test_a_manifest_beside_the_films_names_exercises(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    film(videos / "00000001.mp4")
    labels(videos, {"sub/00000001.mp4": "Cat-Cow"}, "manifest.json")
    path = labels(tmp_path, [{"video_path": "./sub/00000001.mp4", "labels": ["back stays flat"]}])
    (example,), _ = read(path, videos=str(videos))
    assert example.meta["exercise"] == "cat-cow"


def test_no_folder_above_the_films_is_an_exercise(tmp_path: Path) -> None:
    home = tmp_path / "Fitness"
    video = film(home / "00000001.mp4")
    _, refused = read(labels(home, [{"video_path": str(video), "feedbacks": ["Good."]}]))
    assert "no exercise is named" in refused[0].reason


def test_every_place_of_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, sets, videos, home = (tmp_path / name for name in ("here", "sets", "videos", "home"))
    files = {
        "absolute": film(tmp_path / "elsewhere" / "a.mp4"),
        "beside": film(home / "clips" / "b.mp4"),
        "here": film(here / "clips" / "c.mp4"),
        "DATASET_DIR": film(sets / "clips" / "d.mp4"),
        "videos": film(videos / "clips" / "e.mp4"),
        "by name": film(videos / "deep" / "er" / "f.mp4"),
    }
    paths = [str(files["absolute"]), "clips/b.mp4", "./clips/c.mp4", "clips\\d.mp4", "clips/e.mp4", "old/place/f.mp4"]
    monkeypatch.chdir(here)
    monkeypatch.setenv("DATASET_DIR", str(sets))
    path = labels(home, [{"video_path": path, "labels": ["squat - fast"]} for path in paths])
    found, refused = read(path, videos=str(videos))
    assert not refused
    assert [example.media[0].path for example in found] == [str(file.resolve()) for file in files.values()]


def test_missing_and_broken_ones_are_listed(tmp_path: Path) -> None:
    for name in ("00000001.mp4", "a/x.mp4", "b/x.mp4"):
        film(tmp_path / name)
    rows: list[Any] = [
        entry(1),
        entry(2),
        entry(1),
        {"video_path": "x.mp4", "labels": ["squat - fast"]},
        {"labels": ["squat - fast"]},
        {"video_path": "1.mp4"},
        {"video_path": "1.mp4", "labels": [3]},
        "squat",
    ]
    found, refused = read(labels(tmp_path, rows), videos=str(tmp_path))
    assert len(found) == 1
    reasons = {item.line: item.reason for item in refused}
    assert "item 2: the video ./00000002.mp4 is not there" in reasons[2]
    assert "is in an earlier entry" in reasons[3]
    assert "may be" in reasons[4] and "a/x.mp4" in reasons[4] and "b/x.mp4" in reasons[4]
    assert "there is no video path" in reasons[5]
    assert "there is nothing to learn" in reasons[6]
    assert "'labels' must be a text or a list of texts" in reasons[7]
    assert "an entry must be an object, got str" in reasons[8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not JSON"),
        ("[]", "holds an empty list"),
        ("3", "holds JSON of type int"),
        ('[{"video_path": "1.mp4", "labels": ["squat - fast"]}]', "none of its 1 videos is there; looked in"),
    ],
)
def test_a_file_that_gives_nothing_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_is_thinned_and_missing_films_do_not_count(tmp_path: Path) -> None:
    rows = [entry(number, f"{name} - fast") for number, name in enumerate(["squat", "Squat", "lunge"] * 10)]
    for number in range(5, 30):
        film(tmp_path / f"{number:08d}.mp4")
    path = labels(tmp_path, rows)
    found, refused = read(path, videos_per_class=4)
    assert Counter(example.meta["exercise"] for example in found) == {"squat": 4, "lunge": 4} and len(refused) == 5
    assert found == read(path, videos_per_class=4)[0] != read(path, videos_per_class=4, seed=2)[0]
    assert [example.id for example in found] == sorted(example.id for example in found)
    lunges, _ = read(path, videos_per_class=4, exercises=["LUNGE"])
    assert lunges == [
        example for example in found if example.meta["exercise"] == "lunge"
    ]  # what is drawn of one class does not depend on the others
    with pytest.raises(UserError, match=r"'plank', which no film shows; there are: lunge, squat"):
        read(path, exercises=["plank"])


def test_workers_in_the_entry_in_a_file_and_beside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        film(tmp_path / f"{number:08d}.mp4")
    rows = [entry(0, worker_id=5), entry(1), entry(2), entry(3)]
    path = labels(tmp_path, rows)
    with caplog.at_level(logging.INFO, logger="fieldtune"):
        groups = [example.group for example in read(path)[0]]
    assert groups == ["qved-worker-5", "qved-000002", "qved-000003", "qved-000004"]
    assert "the split keeps 1 persons together (known for 1 of 4 films)" in caplog.text
    workers = [{"video_path": f"videos/{number:08d}.mp4", "worker_id": f"w{number // 2}"} for number in range(3)]
    given = labels(tmp_path, workers, "workers.json")
    groups = [example.group for example in read(path, workers=str(given))[0]]
    assert groups == ["qved-worker-5", "qved-worker-w0", "qved-worker-w1", "qved-000004"]
    labels(tmp_path, workers, "fine_grained_labels_with_worker_ids.json")
    assert [example.group for example in read(path)[0]] == groups
    with pytest.raises(UserError, match="has no entry with a video_path and a worker_id"):
        read(path, workers=str(labels(tmp_path, [entry(1)], "none.json")))


def test_prompts_are_configured(tmp_path: Path) -> None:
    film(tmp_path / "00000001.mp4")
    path = labels(tmp_path, [entry(1)])
    (example,), _ = read(path, system_prompt="", user_prompt="How is this {exercise}?")
    assert [turn.role for turn in example.messages] == ["user", "assistant"]
    assert example.messages[0].texts == ("How is this squat?",)


def test_scoring_facts_of_a_row(tmp_path: Path) -> None:
    rows = [
        entry(1, "squat - shallow", labels_descriptive=["squat - User stays high."]),
        entry(2, "squat - fast"),
        entry(3, "lunge - fast", labels_descriptive=["lunge - User hurries."]),
    ]
    for number in (1, 2, 3):
        film(tmp_path / f"{number:08d}.mp4")
    meta = [example.meta for example in read(labels(tmp_path, rows))[0]]
    assert meta[1]["exercises"] == ["lunge", "squat"]
    assert meta[1]["faults"] == {"shallow": ["User stays high."], "fast": []}
    assert meta[2]["faults"] == {"fast": ["User hurries."]}
    assert json.loads(json.dumps(meta)) == meta
