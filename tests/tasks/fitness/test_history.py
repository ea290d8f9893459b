"""Real logs: FIT files and training logs become histories, and rows of real athletes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from fieldtune.errors import UserError
from fieldtune.records import Example, Rejected
from fieldtune.sources.activities import Recorded, read_fit, read_log
from fieldtune.tasks.fitness.athletes import History
from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.conversations import check_conversation
from fieldtune.tasks.fitness.history import history_of, read_histories, session_tss
from fieldtune.tasks.fitness.schema import Thresholds
from fieldtune.tasks.fitness.task import TASK
from tests.tasks.fitness.fit_files import write_fit

START = datetime(2026, 3, 4, 7, 30, tzinfo=UTC)


def log_of(folder: Path, days: int = 40) -> Path:
    lines = ["Date,Athlete,Type,Minutes,TSS,Heart_rate"]
    for number in range(days):
        day = date(2026, 1, 5) + timedelta(number)
        lines += [f"{day},Ana,running,{40 + number % 30},,150"] if number % 2 else []
        lines += [f"{day},Ben,Ride,90,{60 + number},"] if number % 3 == 0 else []
    path = folder / "log.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_fit_file_keeps_zeros_and_leaves_pauses_out(tmp_path: Path) -> None:
    pytest.importorskip("fitdecode")
    watts, beats = [200, 0] * 300, [120 + number % 40 for number in range(600)]
    read = read_fit(write_fit(tmp_path / "a.fit", START, "cycling", watts, beats, pause=900), "Ana")
    assert (read.athlete, read.date, read.sport, read.seconds) == ("Ana", date(2026, 3, 4), "cycling", 600)
    assert list(read.watts) == watts and list(read.beats) == beats


def test_a_short_gap_repeats_the_last_sample(tmp_path: Path) -> None:
    pytest.importorskip("fitdecode")
    read = read_fit(write_fit(tmp_path / "a.fit", START, "running", [100, 300], [150, 160], pause=3), "Ana")
    assert list(read.watts) == [100, 100, 100, 100, 300]


def test_a_broken_fit_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("fitdecode")
    path = write_fit(tmp_path / "a.fit", START, "cycling", [200] * 60, [140] * 60)
    whole = path.read_bytes()
    for data in (whole[:200], whole[:-1] + b"\x00", b"", b"hello", whole[:60] + b"\xff" * 20 + whole[80:]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.fit: (not a whole FIT file|holds no session)"):
            read_fit(path, "Ana")


def test_the_stress_of_a_session_is_taken_from_the_best_there_is() -> None:
    limits = Thresholds(lthr_bpm=160, ftp_watts=250)
    hour = Recorded("Ana", START.date(), "ride", 3600, [250.0] * 3600, [160.0] * 3600)
    assert session_tss(hour, limits) == pytest.approx(100)
    assert session_tss(hour, Thresholds(lthr_bpm=160)) == pytest.approx(100)
    assert session_tss(hour, Thresholds()) == 50
    assert session_tss(Recorded("Ana", START.date(), "ride", 3600, tss=70), limits) == 70


def test_thresholds_come_from_what_was_done() -> None:
    ride = Recorded("Ana", START.date(), "cycling", 3000, [100.0] * 1800 + [300.0] * 1200, [185.0, 150.0] * 1500)
    later = Recorded("Ana", START.date() + timedelta(20), "running", 1800)
    history = history_of("Ana", [later, ride])
    assert history.athlete.thresholds == Thresholds(lthr_bpm=166, max_hr_bpm=185, ftp_watts=285)
    assert (history.first, history.last, history.days_a_week) == (ride.date, later.date, 3)


def test_a_log_has_athletes_and_refused_lines(tmp_path: Path) -> None:
    path = log_of(tmp_path)
    with path.open("a", encoding="utf-8") as file:
        file.write(
            "2026-13-01,Ana,running,40,,\n2026-02-20,Ana,running,,,\n2026-02-21,Ana,run,4000,,\n2026-02-22,Ana\n"
        )
    found = list(read_log(path))
    assert [item.reason for item in found if isinstance(item, Rejected)] == [
        "date: given '2026-13-01'; allowed: a date as 2026-03-04",
        "duration_minutes: given nothing; allowed: the minutes of the session",
        "minutes: given '4000'; allowed: 0 to 1440",
        "given 2 cells; allowed: 6, as in the header",
    ]
    histories = {item.athlete.name: item for item in read_histories(path) if isinstance(item, History)}
    assert histories.keys() == {"Ana", "Ben"}
    assert histories["Ben"].athlete.primary_sport == "cycling" and histories["Ben"].daily_tss[3] == 63


def test_real_athletes_join_the_rows(tmp_path: Path) -> None:
    data = Data(count=40, logs=str(log_of(tmp_path)))
    rows = [row for row in TASK.examples(data, 1) if isinstance(row, Example)]
    names = ['"name":"Ben"' in row.messages[1].text for row in rows[:4]]
    assert len(rows) == 40 and all(names) and '"name":"Ana"' in rows[4].messages[1].text
    assert not [found for row in rows if (found := check_conversation(row.messages))]


def test_a_folder_of_fit_files_is_an_athlete_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("fitdecode")
    for name in ("Ana", "Ben"):
        (tmp_path / name).mkdir()
        for day in range(0, 12, 3):
            start = START + timedelta(day)
            write_fit(tmp_path / name / f"{day}.fit", start, "running", [0] * 1200, [150] * 1200)
    (tmp_path / "Ben" / "broken.fit").write_bytes(b"x")
    found = list(read_histories(tmp_path))
    assert {item.athlete.name for item in found if isinstance(item, History)} == {"Ana", "Ben"}
    assert [Path(item.path).name for item in found if isinstance(item, Rejected)] == ["broken.fit"]


def test_too_little_and_nothing(tmp_path: Path) -> None:
    found = list(read_histories(log_of(tmp_path, 2)))
    assert [isinstance(item, Rejected) and "1 days of history" in item.reason for item in found] == [True, True]
    with pytest.raises(UserError, match=r"holds no \.csv and no \.fit"):
        list(read_histories(tmp_path / "nothing"))
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="not a training log"):
        list(read_histories(tmp_path / "bad.csv"))
