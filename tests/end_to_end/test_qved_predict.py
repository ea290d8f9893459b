"""`fieldtune predict video=`: feedback on films by a run of `experiment=qved_demo`; without one by the base model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fieldtune import runs
from fieldtune.cli import main
from fieldtune.runs import Run
from tests.sources.films import cut
from tests.stages import lines_of, run_here

SHORT = (
    "experiment=qved_demo",
    "tracking=off",
    "data.count=17",
    "trainer.max_epochs=1",
    "trainer.max_steps=2",
    "trainer.warmup_steps=0",
    "trainer.eval_rows=2",
    "trainer.sample_rows=0",
    "evaluation.max_new_tokens=4",
    "hardware=cpu",
    "hardware.threads=1",
)
ALOUD = "the base model mobile_videogpt_tiny answers, which was not fine-tuned"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> tuple[Path, tuple[str, ...], Run]:
    folder = tmp_path_factory.mktemp("qved")
    words = (*SHORT, f"cache_dir={tiny_cache}")
    run_here(folder, "prepare", *words)
    return folder, words, run_here(folder, "train", *words)


@pytest.fixture
def clips(work: tuple[Path, tuple[str, ...], Run], tmp_path: Path) -> Path:
    """Two films in a folder of their own."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, film in enumerate(sorted(work[0].glob("datasets/films/**/*.mp4"))[:2]):
        shutil.copy(film, folder / f"{number}.mp4")
    return folder


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def asked(*words: str) -> tuple[int, list[dict[str, Any]], str]:
        """Status, lines of the answers, and standard error."""
        monkeypatch.setattr(sys, "argv", ["fieldtune", "predict", *words])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(str(ended.code))
        said = capsys.readouterr()
        return status, [json.loads(line) for line in said.out.splitlines()], said.err

    return asked


def test_a_film_is_answered_with_the_frames_that_were_chosen(
    work: tuple[Path, tuple[str, ...], Run], clips: Path, predict: Any, tmp_path: Path
) -> None:
    status, (line,), said = predict(
        f"run={work[2].folder}", f"video={clips / '0.mp4'}", f"sheet={tmp_path / 'one.png'}"
    )
    assert (status, said) == (0, "")
    assert line["request"] == {"video": str(clips / "0.mp4")} and isinstance(line["answer"], str)
    assert len(line["frames"]) == 8 and line["frames"] == sorted({*line["frames"]}) and max(line["frames"]) < 16
    assert [sum(number // 8 == chunk for number in line["frames"]) for chunk in (0, 1)] == [4, 4]
    assert line["seconds"] == [number / 8 for number in line["frames"]]  # 16 frames in 2 seconds
    with Image.open(line["sheet"]) as sheet:
        assert sheet.format == "PNG" and sheet.width > 4 * 240 and sheet.height > 2 * 240


def test_a_folder_is_a_batch_in_which_a_broken_film_is_named(
    work: tuple[Path, tuple[str, ...], Run], clips: Path, predict: Any, tmp_path: Path
) -> None:
    run = f"run={work[2].folder}"
    _, alone, _ = predict(run, f"video={clips / '0.mp4'}")
    cut(clips / "1.mp4", 0.3)
    shutil.copy(clips / "0.mp4", clips / "2.mp4")
    (clips / "notes.txt").write_text("no film", encoding="utf-8")
    status, lines, said = predict(run, f"video={clips}", f"sheet={tmp_path / 'sheets'}")
    assert status == 0 and [line["request"]["video"] for line in lines] == [str(clips / f"{n}.mp4") for n in (0, 2)]
    assert said.startswith(f"left out: {clips / '1.mp4'} ") and said.count("\n") == 1
    assert {name: lines[0][name] for name in ("answer", "frames")} == {n: alone[0][n] for n in ("answer", "frames")}
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["0.mp4.png", "2.mp4.png"]
    for name in ("0.mp4", "2.mp4"):
        (clips / name).unlink()
    status, lines, said = predict(run, f"video={clips}")
    assert (status, lines) == (2, []) and said.count("\n") == 1 and "1.mp4" in said


def test_films_that_training_kept_are_read(work: tuple[Path, tuple[str, ...], Run], predict: Any) -> None:
    _, words, run = work
    media = Path(words[-1].partition("=")[2]) / "media"
    kept = {*media.glob("??/*.entry")}
    (row, *_) = lines_of(Path(run.manifest()["data"]["folder"]) / "train.jsonl")
    status, _, _ = predict(f"run={run.folder}", f"video={row['messages'][1]['content'][0]['path']}")
    assert status == 0 and kept == {*media.glob("??/*.entry")}


def test_without_a_run_the_base_model_answers_and_it_is_said(
    work: tuple[Path, tuple[str, ...], Run],
    clips: Path,
    predict: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, words, run = work
    film = f"video={clips / '0.mp4'}"
    here = (f"output_dir={folder / 'outputs'}", f"dataset_dir={folder / 'datasets'}")
    _, base, _ = predict(f"run={run.folder}", film, "system=base")
    monkeypatch.chdir(tmp_path)
    status, lines, said = predict(*words, film)
    assert status == 0 and lines == base
    assert said == f"no trained run of qved_demo is in outputs: {ALOUD}\n"
    status, lines, said = predict("run=base", *words, film, *here)
    assert status == 0 and lines == base and said == ""
    _, tuned, _ = predict(f"run={run.folder}", film)
    assert predict(*words, film, *here) == (0, tuned, "")  # there is one, and it is taken
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run.folder, unfinished)
    (unfinished / runs.MANIFEST).unlink()
    status, lines, said = predict(f"run={unfinished}", film)
    assert status == 0 and lines == base and said == f"{unfinished} is unfinished: {ALOUD}\n"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("run=gone",), "gone is not a run folder"),
        (("run=latest",), "no train run is in outputs; run train.py first, or name the configuration"),
        (("run=base",), "run=base needs the words of a configuration"),
        ((), "run= is missing"),
        (("run=gone", "experiment=qved_demo"), "experiment=qved_demo cannot be given with run=gone"),
        (("experiment=qved_dmo",), "did you mean qved_demo?"),
        (("run=gone", "sheet=one.png", "input=x.json"), "one of them"),
    ],
)
def test_a_slip_is_one_line(
    given: tuple[str, ...], problem: str, predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.mp4").write_text("words", encoding="utf-8")
    status, lines, said = predict("video=one.mp4", *given)
    assert (status, lines) == (2, []) and problem in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("video=gone.mp4",), "video=gone.mp4 does not exist"),
        (("video=.",), "video=. holds no film"),
        (("image=one.png", "sheet=x.png"), "sheet=x.png goes with video=FILE"),
        (("video=clips", "sheet=x.png"), "give a folder for the sheets"),
    ],
)
def test_a_slip_in_what_is_asked_is_one_line(
    given: tuple[str, ...], problem: str, predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for name in ("one.png", "clips/1.mp4"):
        (tmp_path / name).write_text("words", encoding="utf-8")
    status, lines, said = predict("run=gone", *given)
    assert (status, lines) == (2, []) and problem in said and said.count("\n") == 1
