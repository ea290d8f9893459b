"""prepare on rows with pictures and films: whole ones are sealed, broken ones quarantined, films tell rows apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fieldtune.file_check import check_file
from fieldtune.records import file_sha256

from ..sources.films import bars, write_film
from ..stages import lines_of, run_here, write_rows


def row(kind: str, path: str, answer: str = "Bars.") -> dict[str, Any]:
    asked = [{"type": kind, "path": path}, {"type": "text", "text": "What does it show?"}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve rows of one question on as many pictures, two on one film, and three on broken files."""
    home = tmp_path / "mine"
    (home / "clips").mkdir(parents=True)
    for number in range(12):
        Image.fromarray(bars(number)).save(home / f"{number}.png")
    write_film(home / "clips" / "film.mp4")
    (home / "clips" / "text.mp4").write_text("words")
    media = [row("image", f"{number}.png") for number in range(12)]
    media += [row("video", "clips/film.mp4"), row("video", "clips/../clips/film.mp4", "Thirty frames.")]
    media += [row("video", "clips/text.mp4"), row("video", "clips/missing.mp4"), row("image", "clips/film.mp4")]
    media.append(
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "path": "3.png"}]},
                row("image", "")["messages"][1],
            ]
        }
    )
    return write_rows(home / "rows.jsonl", media)


def prepared(folder: Path, *words: str) -> tuple[Path, dict[str, Any]]:
    common = ("data=jsonl", "tracking=off", "data.split=[0.6,0.2,0.2]", f"cache_dir={folder / 'cache'}")
    dataset = Path(run_here(folder, "prepare", *common, *words).manifest()["data"]["folder"])
    return dataset, json.loads((dataset / "manifest.json").read_text())


def test_broken_media_cost_their_rows_only(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset, manifest = prepared(tmp_path, "data.path=mine/rows.jsonl")
    assert sum(manifest["rows"].values()) == 15 and manifest["quarantined"] == 3
    assert manifest["media"] == {"files": 17, "read": 14, "remembered": 0, "broken": 3, "rows": 3}
    quarantined = lines_of(dataset / "quarantine.jsonl")
    assert [Path(line["path"]).name for line in quarantined] == ["text.mp4", "missing.mp4", "film.mp4"]
    assert all("(row rows-0000" in line["reason"] for line in quarantined)
    said = capsys.readouterr().out
    assert f"{tmp_path}/mine/clips/text.mp4 is left out: is not a film that can be read" in said
    assert "media: 17 files, 3 of no use, which cost 3 rows" in said

    kept = {split: lines_of(dataset / f"{split}.jsonl") for split in ("train", "val", "test")}
    parts = [part for lines in kept.values() for line in lines for part in line["messages"][0]["content"]]
    for part in parts:
        if part["type"] != "text":
            assert Path(part["path"]).is_absolute() and part["sha256"] == file_sha256(Path(part["path"]))
    # Rows of one picture or film stay together, rows of others are not near-duplicates however alike their words are.
    assert all(kept.values())
    homes: dict[str, set[str]] = {}
    for split, lines in kept.items():
        for line in lines:
            homes.setdefault(line["messages"][0]["content"][0]["sha256"], set()).add(split)
    assert len(homes) == 13 and all(len(splits) == 1 for splits in homes.values())
    page = (dataset / "preview.html").read_text()
    assert "[image " in page


def test_a_second_prepare_reads_no_film_again(tmp_path: Path, rows: Path) -> None:
    first, _ = prepared(tmp_path, f"data.path={rows}")
    again, manifest = prepared(tmp_path, f"data.path={rows}")
    assert again == first and (manifest["media"]["read"], manifest["media"]["remembered"]) == (0, 14)


def test_a_part_of_a_mixture_has_media_of_its_own_folder(tmp_path: Path, rows: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for number in range(20, 30):
        Image.fromarray(bars(number)).save(other / f"{number}.png")
    write_rows(other / "rows.jsonl", [row("image", f"{number}.png") for number in range(20, 30)])
    part = f"data.mixture=[{{name: other, path: {other / 'rows.jsonl'}, weight: 1}}]"
    dataset, manifest = prepared(tmp_path, f"data.path={rows}", part)
    assert manifest["quarantined"] == 3 and manifest["media"]["files"] == 27
    found = [part["path"] for line in lines_of(dataset / "val.jsonl") for part in line["messages"][0]["content"][:1]]
    assert found and all(Path(path).exists() for path in found)


def test_rows_with_media_are_valid(rows: Path) -> None:
    report = check_file(rows)
    assert report.rows == 18 and report.problems == []
