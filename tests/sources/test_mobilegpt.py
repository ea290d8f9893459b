"""Rows with pictures or a film in the MobileGPT and LLaVA form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fieldtune.records import Example, Media, Message, RecordError, Rejected
from fieldtune.sources.mobilegpt import row_of
from fieldtune.sources.tabular import read_rows


def talk(question: str, **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "A squat."}]
    return {"conversations": turns, **more}


def read(folder: Path, *rows: dict[str, Any]) -> list[Example | Rejected]:
    for name in ("a.mp4", "b.png", "c.png"):
        (folder / name).write_bytes(name.encode())
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return list(read_rows(path, "web"))


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (talk("<video>\nWhat is it?", video="a.mp4"), ["a.mp4", "What is it?"]),
        (talk("What is it?", video="a.mp4"), ["a.mp4", "What is it?"]),
        (talk("Look: <video> What is it?", video="a.mp4"), ["Look:", "a.mp4", "What is it?"]),
        (talk("<image>" * 16 + "\nWhat is it?", video="a.mp4"), ["a.mp4", "What is it?"]),
        (talk("<video>", video="a.mp4"), ["a.mp4"]),
        (talk("<image>\nWhat is it?", image="b.png"), ["b.png", "What is it?"]),
        (talk("<image> or <image>?", image=["b.png", "c.png"]), ["b.png", "or", "c.png", "?"]),
        (talk("What does <video> mean in HTML?"), ["What does <video> mean in HTML?"]),
    ],
)
def test_media_stand_where_their_placeholders_are(tmp_path: Path, row: dict[str, Any], parts: list[str]) -> None:
    (example,) = read(tmp_path, row)
    assert isinstance(example, Example)
    found = [Path(part.path).name if isinstance(part, Media) else part for part in example.messages[0].parts]
    assert found == parts
    for media in example.media:
        assert Path(media.path).parent == tmp_path
        assert media.kind == ("video" if media.path.endswith("mp4") else "image")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (talk("<video>", video=3), "'video' must be a path"),
        (talk("<video>", video=["a.mp4", "a.mp4"]), "'video' must be one path"),
        (talk("<image><image>", image="b.png"), "more <image> than images (1)"),
        (talk("<image>", image=["b.png", "c.png"]), "there are 2 images but 1 <image>"),
        (talk("<image>", image="b.png", video="a.mp4"), "both 'video' and 'image'"),
    ],
)
def test_rows_that_do_not_fit_are_left_out(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    (refused,) = read(tmp_path, row)
    assert isinstance(refused, Rejected)
    assert reason in refused.reason


def test_a_row_written_and_read_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.png", "c.png"):
        (tmp_path / "clips" / name).write_bytes(name.encode())
    media = {
        name: Media("video" if name[-1] == "4" else "image", str(path))
        for name, path in ((path.name, path) for path in (tmp_path / "clips").iterdir())
    }
    answer = Message("assistant", ("A squat.",))
    rows = [
        Example(
            "1", (Message("system", ("Be brief.",)), Message("user", (media["a.mp4"], "What?")), answer), "web", "w1"
        ),
        Example("2", (Message("user", (media["b.png"], "or", media["c.png"])), answer), "web", "w2"),
        Example("3", (Message("user", ("Why?",)), answer), "web", "w3"),
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row_of(row) for row in rows]))
    assert list(read_rows(path, "web")) == rows
    with pytest.raises(RecordError, match="pictures or one film"):
        row_of(Example("4", (Message("user", tuple(media.values())), answer), "web", "w4"))


def test_chat_rows_take_media_from_the_folder_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    content = [{"type": "video", "path": "a.mp4"}, {"type": "text", "text": "What?"}]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A squat."}]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (example,) = read_rows(path, "web")
    assert isinstance(example, Example)
    assert example.media == (Media("video", str(tmp_path / "a.mp4")),)
