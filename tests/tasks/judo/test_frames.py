"""Folders of labeled frames: what names a technique, whom a frame shows, what is put aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fieldtune.errors import UserError
from fieldtune.records import Rejected
from fieldtune.tasks.judo.frames import Frame, read_frames
from fieldtune.tasks.judo.vocabulary import NOTHING, vocabulary
from tests.tasks.judo.pictures import write_frame


def read(folder: Path) -> tuple[dict[str, Frame], list[Rejected]]:
    items = list(read_frames(folder, vocabulary()))
    frames = {item.name: item for item in items if isinstance(item, Frame)}
    return frames, [item for item in items if isinstance(item, Rejected)]


def test_folders_and_names(tmp_path: Path) -> None:
    for number, name in enumerate(
        (
            "Seoi_Nage/anna__001.png",
            "seoi-nage/0002.png",
            "none/hall.png",
            "standing_uchi_mata_001.jpg",
            "tachi_waza/standing_o_goshi_010.jpg",
            ".cache/seoi-nage/1.png",
        )
    ):
        write_frame(tmp_path / name, number)
    frames, rejected = read(tmp_path)
    assert {name: (frame.technique, frame.group) for name, frame in frames.items()} == {
        "Seoi_Nage/anna__001.png": ("seoi-nage", "anna"),
        "seoi-nage/0002.png": ("seoi-nage", None),
        "none/hall.png": (NOTHING, None),
        "standing_uchi_mata_001.jpg": ("uchi-mata", None),
        "tachi_waza/standing_o_goshi_010.jpg": ("o-goshi", None),
    }
    assert rejected == []


def test_descriptions_go_before_names(tmp_path: Path) -> None:
    for number, name in enumerate(("standing_uchi_mata_001.jpg", "clips/a.png", "clips/b.png")):
        write_frame(tmp_path / name, number)
    (tmp_path / "dataset_standing.json").write_text(
        json.dumps([{"image": "standing_uchi_mata_001.jpg", "technique": "Harai Goshi", "video": "tachi_waza.mp4"}])
    )
    lines = [{"image": "a.png", "technique": "o-goshi", "performer": 7, "video": "x", "errors": []}, {"image": "b.png"}]
    (tmp_path / "clips" / "error_examples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    frames, rejected = read(tmp_path)
    first, second = frames["standing_uchi_mata_001.jpg"], frames["clips/a.png"]
    assert (first.technique, first.group) == ("harai-goshi", "tachi_waza.mp4")
    assert (second.technique, second.group, second.place[1]) == ("o-goshi", "7", 1)
    assert [item.line for item in rejected] == [2]  # b.png: described, but nothing names its technique


def test_what_is_put_aside_says_why(tmp_path: Path) -> None:
    write_frame(tmp_path / "seoi-naqe" / "a.png", 1)
    (tmp_path / "o-goshi").mkdir()
    (tmp_path / "o-goshi" / "a.png").write_text("not a picture")
    write_frame(tmp_path / "o-goshi" / "b.png", 2)
    lines = ['{"image": "gone.png"}', "[1]", "{oops", '{"image": "b.png"}', '{"image": "b.png"}']
    (tmp_path / "o-goshi" / "said.jsonl").write_text("\n".join(lines))
    frames, rejected = read(tmp_path)
    assert list(frames) == ["o-goshi/b.png"]
    reasons = [item.reason for item in rejected]
    for wanted in (
        "no picture gone.png",
        "an object with the path of its 'image'",
        "not JSON",
        "described before",
        "neither a PNG nor a JPEG",
        "'seoi-naqe' is no technique that is known; the nearest is 'seoi-nage'",
    ):
        assert sum(wanted in reason for reason in reasons) == 1, wanted


@pytest.mark.parametrize(("content", "expected"), [("{", "not JSON"), ('{"a": 1}', "holds dict"), ("\x00", "not JSON")])
def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path, content: str, expected: str) -> None:
    write_frame(tmp_path / "o-goshi" / "a.png", 1)
    (tmp_path / "dataset_standing.json").write_text(content)
    with pytest.raises(UserError, match=expected) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no picture"):
        read(tmp_path)
