"""`fieldtune rows` takes the words of train.py: the same composition, the same checks, the same lines."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from fieldtune import cli
from fieldtune.config import Config

from ..commands import TINY, environment, script, write_rows
from .test_command_line import BAD

OF_TRAIN = [(words, expected) for stage, words, expected in BAD if stage == "train"]


def run(*words: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fieldtune.cli", "rows", *words],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
    )


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a refused command says, run in this process."""
    monkeypatch.setattr(sys, "argv", ["fieldtune", "rows", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    return err


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    write_rows(folder / "mine.jsonl")
    assert script(folder, "prepare", *TINY).returncode == 0
    return folder


@pytest.mark.parametrize(("words", "expected"), OF_TRAIN, ids=[" ".join(words) for words, _ in OF_TRAIN])
def test_bad_words_are_told_as_train_tells_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in said(monkeypatch, capsys, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("splt=val", "splt=val is not understood; did you mean split?"),
        ("row=3", "did you mean rows?"),
        ("+html=x", "did you mean html?"),
        ("--multirun", "--multirun is not understood; give words of train.py, and split=... rows=... id=... html=..."),
        ("rows=none", "rows=none is not a number of rows; give a whole number, 1 or more"),
        ("rows=0", "rows=0 is not a number of rows"),
        ("split", "split is not understood"),
        ("seed=1,2", "see train.py --help"),
    ],
)
def test_a_slip_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, expected: str
) -> None:
    found = said(monkeypatch, capsys, word)
    assert expected in found and len(found.splitlines()) == 1


def test_an_unknown_split(prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(prepared)
    assert "split=all is not a split; allowed: train, val, test" in said(monkeypatch, capsys, *TINY, "split=all")


def test_its_words_are_none_of_the_configuration(root: Path) -> None:
    groups = {path.name for path in (root / "conf").iterdir() if path.is_dir()}
    assert not cli.ROWS.keys() & ({item.name for item in fields(Config)} | groups)


def test_a_mistake_is_told_before_torch_is_there(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from fieldtune import cli; cli.main()"
    )
    command = [sys.executable, "-c", code, "rows", "trainer.learing_rate=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "did you mean trainer.learning_rate?" in done.stderr


def test_into_a_pipe_it_brackets_and_writes_no_color(prepared: Path) -> None:
    done = run(*TINY, "rows=2", folder=prepared, PYTHONUTF8="1")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "⟦It" in done.stdout and "<|endoftext|>⟧" in done.stdout
    assert done.stdout.count("--- mine-") == 2 and done.stdout.count("train: 12 rows, ") == 1


def test_a_terminal_gets_color_unless_it_says_no(prepared: Path) -> None:
    def on_terminal(**more: str) -> str:
        leader, follower = pty.openpty()
        command = [sys.executable, "-m", "fieldtune.cli", "rows", *TINY, "rows=1"]
        variables = {"TERM": "xterm-256color", "NO_COLOR": "", **more}
        with subprocess.Popen(
            command, cwd=prepared, env=environment(**variables), stdout=follower, stderr=subprocess.DEVNULL
        ):
            os.close(follower)
            parts = []
            try:
                while part := os.read(leader, 4096):
                    parts.append(part)
            except OSError:  # how the end of a terminal's output is read
                pass
        os.close(leader)
        return b"".join(parts).decode()

    assert "\x1b[30;48;5;114m" in on_terminal()
    assert "\x1b" not in on_terminal(NO_COLOR="1")


def test_the_page(prepared: Path) -> None:
    done = run(*TINY, "split=val", "rows=9", "html=made/rows.html", folder=prepared)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("val: 4 rows, ") and done.stdout.endswith("4 rows in made/rows.html\n")
    assert (prepared / "made" / "rows.html").is_file()


def test_a_terminal_without_unicode_is_no_fault(prepared: Path) -> None:
    done = run(*TINY, "rows=1", folder=prepared, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "<|endoftext|>" in done.stdout
