"""Rows whose media are missing, changed or broken are left out; unchanged files are read once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from fieldtune.records import Example, Media, Message, Rejected, file_sha256
from fieldtune.sources.media_files import Item, MediaFiles

from .films import bars, cut, write_film


def row(name: str, *media: Media) -> Example:
    return Example(name, (Message("user", (*media, "What is this?")), Message("assistant", ("Bars.",))), "test", name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    Image.fromarray(bars(1)).save(tmp_path / "picture.png")
    broken = write_film(tmp_path / "cut.mp4", range(60), container={"movflags": "faststart"})
    (tmp_path / "text.mp4").write_text("words")
    return {
        "picture": tmp_path / "picture.png",
        "film": write_film(tmp_path / "film.mp4"),
        "cut": cut(broken, 0.6),
        "text": tmp_path / "text.mp4",
        "missing": tmp_path / "missing.mp4",
    }


def screened(index: Path, rows: Sequence[Item]) -> tuple[list[Item], dict[str, int]]:
    with MediaFiles(index, workers=1) as media:
        found = list(media.screened(rows))
        return found, asdict(media.counts)


def test_good_rows_are_sealed_and_the_others_left_out(tmp_path: Path, files: dict[str, Path]) -> None:
    rows: list[Item] = [
        row("plain"),
        row("both", Media("image", str(files["picture"])), Media("video", str(files["film"]))),
        *(row(name, Media("video", str(files[name]))) for name in ("cut", "text", "missing")),
        row("changed", Media("image", str(files["picture"]), "0" * 64)),
        Rejected("rows.jsonl", 3, "not JSON", "{"),
        row("kept", Media("image", str(files["picture"]), file_sha256(files["picture"]))),
        row("folder", Media("image", str(tmp_path))),
        row("zero", Media("image", "a\0b")),
        row("a film is no picture", Media("image", str(files["film"]))),
    ]
    found, counts = screened(tmp_path / "index.jsonl", rows)
    kept = [item for item in found if isinstance(item, Example)]
    assert [item.id for item in kept] == ["plain", "both", "kept"]
    assert kept[1].media == tuple(
        Media(kind, str(files[name]), file_sha256(files[name]))  # type: ignore[arg-type]
        for kind, name in (("image", "picture"), ("video", "film"))
    )
    assert kept[1].messages[0].texts == ("What is this?",)
    reasons = [item.reason for item in found if isinstance(item, Rejected)]
    assert len(reasons) == 8 and all("\n" not in reason for reason in reasons)
    wanted = ["(row cut)", "(row text)", "No such file", "is not the file that the row names", "not JSON"]
    wanted += ["not a regular file", "null byte", "is not a picture"]
    assert all(words in reason for words, reason in zip(wanted, reasons, strict=True))
    assert counts == {"files": 8, "read": 2, "remembered": 0, "broken": 6, "rows": 7}


def test_unchanged_files_are_remembered(tmp_path: Path, files: dict[str, Path]) -> None:
    index = tmp_path / "cache" / "index.jsonl"
    rows = [row("film", Media("video", str(files["film"]))), row("picture", Media("image", str(files["picture"])))]
    first, counts = screened(index, rows)
    assert (counts["read"], counts["remembered"]) == (2, 0)
    with index.open("a") as file:
        file.write('\n["half a line')  # of a process that was killed
    again, counts = screened(index, rows)
    assert again == first and (counts["read"], counts["remembered"]) == (0, 2)

    facts = files["picture"].stat()
    Image.fromarray(bars(2)).save(files["picture"])
    os.utime(files["picture"], ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    changed, counts = screened(index, rows)
    assert (counts["read"], counts["remembered"]) == (1, 1)
    assert isinstance(changed[1], Example) and changed[1].media[0].sha256 == file_sha256(files["picture"])
    assert screened(index, rows)[1]["remembered"] == 2


def test_rows_without_media_start_no_process(tmp_path: Path) -> None:
    with MediaFiles(tmp_path / "index.jsonl") as media:
        rows = [row(str(number)) for number in range(1000)]
        stream = media.screened(iter(rows))
        assert next(stream) is rows[0]  # at once: nothing is held back
        assert list(stream) == rows[1:]
    assert not (tmp_path / "index.jsonl").exists()


def test_many_rows_keep_their_order(tmp_path: Path, files: dict[str, Path]) -> None:
    rows = [row(str(n), *([Media("image", str(files["picture"]))] if n % 3 == 2 else [])) for n in range(700)]
    found, counts = screened(tmp_path / "index.jsonl", rows)
    assert [item.id for item in found if isinstance(item, Example)] == [str(n) for n in range(700)]
    assert counts["files"] == counts["read"] == 1
