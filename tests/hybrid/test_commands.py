"""`fieldtune fitness ...` as it is typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fieldtune import cli
from fieldtune.store.database import open_database
from tests.hybrid.athletes import TODAY, add, coach, skip
from tests.tasks.fitness.test_history import log_of

Say = Callable[..., str]
NOW = "today=2026-03-04"


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in an empty folder; returns what it prints, or its one line of refusal."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["fieldtune", "fitness", *words])
        try:
            cli.main()
        except SystemExit as end:
            assert end.code == 2
            said = capsys.readouterr()
            assert said.err.count("\n") == 1
            return said.err
        return capsys.readouterr().out

    return run


D = "database=coach.db"


def test_athletes_plan_undo_and_audit(say: Say, tmp_path: Path) -> None:
    assert say("migrate", D) == "sqlite:///coach.db has tables of revision 0001\n"
    added = say("add", D, "simulate=2", "seed=3", NOW)
    assert added.startswith("athlete 1: ") and added.count("\n") == 2 and " planned" in added
    assert len(say("athletes", D).splitlines()) == 2
    plan = say("plan", D, "athlete=1", NOW)
    assert "Wed 2026-03-04" in plan or "Thu 2026-03-05" in plan
    say("add", D, f"log={log_of(tmp_path)}", NOW)
    assert [line.split()[1] for line in say("athletes", D).splitlines()[2:]] == ["Ben", "Ana"]
    database = open_database("coach.db")
    number = add(database)
    found = coach(database, skip()).modify(number, "No time.", today=TODAY)
    database.close()
    assert "Thu 2026-03-05" not in say("plan", D, f"athlete={number}", NOW)
    undone = say("undo", D, f"change={found.change.id}")
    assert undone.splitlines()[1:] == [
        "+ Thu 2026-03-05    60 min  TSS  80  threshold Threshold run (running)"
    ] and undone.startswith("change 2: applied")
    audit = say("audit", D, f"athlete={number}").splitlines()
    assert "undo" in audit[0] and "plan_modification applied   feedback: No time.; dry_run: False" in audit[1]
    assert "is not undone: the plan was changed since change 1" in say("undo", D, "change=1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "athlete=1", D), "coach.db is not a file; give: fieldtune fitness migrate database=coach.db"),
        (("pla",), "fitness pla is not a command; did you mean plan?; there are: migrate, add, athletes"),
        (("plan", D), "athlete= is missing; give athlete=..."),
        (("plan", D, "athlete=x"), "athlete=x is not allowed; give a whole number from 1"),
        (("plan", D, "athlete=1", "today=4.3."), "today=4.3. is not a date; give one as 2026-03-04"),
        (("add", D), "give either simulate=NUMBER or log=FILE|FOLDER"),
        (("add", D, "simulate=1", "athlete=1"), "athlete= goes with log="),
        (("ask", D, "athlete=1", "run=latest"), "give either request=... (a change), or goals=..."),
        (("ask", D, "athlete=1", "run=latest", "request=x", "dry_run=yes"), "dry_run=yes is not allowed; give one of"),
        (("ask", D, "athlete=1", "run=latest", "request=x", "constrained=1"), "constrained=1 is not allowed"),
        (("migrate", "database=mysql://x"), "database=mysql://... is not supported"),
        (("migrate", "databas=x"), "did you mean database?"),
    ],
)  # fmt: skip
def test_bad_words(say: Say, words: tuple[str, ...], said: str) -> None:
    assert said in say(*words)


def test_what_is_not_there(say: Say, tmp_path: Path) -> None:
    say("migrate", D)
    assert "there is no athlete 7" in say("plan", D, "athlete=7")
    assert "there is no change 7" in say("undo", D, "change=7")
    assert "log=absent does not exist" in say("add", D, "log=absent")
    (tmp_path / "short.csv").write_text("date,sport,minutes\n2026-03-03,running,40\n")
    assert "holds no athlete with a week of history" in say("add", D, "log=short.csv").splitlines()[-1]
    assert "no finished train run" in say("ask", D, "athlete=1", "run=latest", "request=I am tired")
    assert "ask again" not in say("help") and "fieldtune fitness undo" in say("help")
