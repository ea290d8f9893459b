"""Sessions that athletes have recorded, from FIT files and training logs: what a session was, before any judgment.

A training log is a CSV file with a header. Columns, in any order and case:

    date                                2026-03-04
    sport | type                        running, cycling, ...
    duration_minutes | minutes          or hours, or seconds
    tss                                 may be left out, or empty: then power, heart rate or the duration decide
    average_watts | power               may be left out
    average_heart_rate | heart_rate     may be left out
    athlete                             may be left out: the file is one athlete's
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date
from datetime import datetime
from pathlib import Path
from typing import Any

from fieldtune.errors import UserError
from fieldtune.records import RecordError, Rejected

COLUMNS = {
    "date": "date",
    "sport": "sport",
    "type": "sport",
    "duration_minutes": "minutes",
    "minutes": "minutes",
    "hours": "hours",
    "seconds": "seconds",
    "tss": "tss",
    "average_watts": "watts",
    "power": "watts",
    "average_heart_rate": "beats",
    "heart_rate": "beats",
    "athlete": "athlete",
}
DURATIONS = {"minutes": 60, "hours": 3600, "seconds": 1}
LONGEST = 24 * 3600  # seconds of a session
LONGEST_GAP = 10  # seconds between two samples of one piece; a longer gap is a pause
SHOWN = 500  # characters of a refused line that are kept


@dataclass(frozen=True, slots=True)
class Recorded:
    """A session. watts, beats (a minute): one sample a second, zeros kept, or one average; empty if not recorded."""

    athlete: str
    date: Date
    sport: str
    seconds: int
    watts: Sequence[float] = ()
    beats: Sequence[float] = ()
    tss: float | None = None


def read_log(path: Path) -> Iterator[Recorded | Rejected]:
    """The sessions of a training log, lines that are not one as `Rejected`; `UserError` without the columns."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
        with file:
            reader = csv.reader(file)
            header = [COLUMNS.get(cell.strip().lower(), "") for cell in next(reader, [])]
            if not {"date", "sport"} <= set(header) or not DURATIONS.keys() & set(header):
                known = "date, sport, duration_minutes (or hours, seconds), and perhaps tss, average_watts, ..."
                raise UserError(f"{path}: not a training log; the header needs {known}")
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _row(path, reader.line_num, header, cells)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not CSV in UTF-8 ({error}); save it as comma-separated UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a .csv training log") from None


def is_log(path: Path) -> bool:
    """Whether a CSV file's header is that of a training log."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = {COLUMNS.get(cell.strip().lower(), "") for cell in file.readline().split(",")}
    return {"date", "sport"} <= header and bool(DURATIONS.keys() & header)


def _row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> Recorded | Rejected:
    text = ",".join(cells)[:SHOWN]
    if len(cells) != len(header):
        return Rejected(str(path), line, f"given {len(cells)} cells; allowed: {len(header)}, as in the header", text)
    row = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if name}
    try:
        return _recorded(row, path.stem)
    except RecordError as error:
        return Rejected(str(path), line, str(error), text)


def _recorded(row: Mapping[str, str], athlete: str) -> Recorded:
    try:
        date = Date.fromisoformat(row["date"][:10])
    except ValueError:
        raise RecordError(f"date: given {row['date']!r}; allowed: a date as 2026-03-04") from None
    if not row["sport"]:
        raise RecordError("sport: given nothing; allowed: a sport as running")
    unit = next((name for name in DURATIONS if row.get(name)), None)
    if unit is None:
        raise RecordError("duration_minutes: given nothing; allowed: the minutes of the session")
    seconds = _number(row, unit, 0, LONGEST / DURATIONS[unit]) * DURATIONS[unit]
    watts = [_number(row, "watts", 0, 3000)] if row.get("watts") else []
    beats = [_number(row, "beats", 25, 250)] if row.get("beats") else []
    tss = _number(row, "tss", 0, 2000) if row.get("tss") else None
    return Recorded(row.get("athlete") or athlete, date, row["sport"].lower(), round(seconds), watts, beats, tss)


def _number(row: Mapping[str, str], name: str, low: float, high: float) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise RecordError(f"{name}: given {row[name]!r}; allowed: {low:g} to {high:g}")
    return value


def read_fit(path: Path, athlete: str) -> Recorded:
    """The session of a FIT file; `UserError` if it is broken, is none, or the package that reads it is missing."""
    try:
        import fitdecode
    except ModuleNotFoundError:
        raise UserError(f"{path}: FIT files need the package fitdecode; pip install 'fieldtune[fit]'") from None
    records: list[Any] = []
    session: Any = None
    try:
        with fitdecode.FitReader(str(path), check_crc=fitdecode.CrcCheck.RAISE) as reader:
            for frame in reader:
                if frame.frame_type != fitdecode.FIT_FRAME_DATA:
                    continue
                if frame.name == "record":
                    records.append(frame)
                elif frame.name == "session" and session is None:
                    session = frame
    except (fitdecode.FitError, OSError, ValueError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: not a whole FIT file ({reason}); export the activity again") from None
    times = [record.get_value("timestamp", fallback=None) for record in records]
    start = session.get_value("start_time", fallback=None) if session else next(filter(None, times), None)
    if not isinstance(start, datetime):
        raise UserError(f"{path}: holds no session with a start time; give a FIT activity file")
    power, heart = (_by_second(times, records, name) for name in ("power", "heart_rate"))
    timer = session.get_value("total_timer_time", fallback=None) if session else None
    seconds = round(timer) if isinstance(timer, int | float) else max(len(power), len(heart))
    sport = session.get_value("sport", fallback=None) if session else None
    return Recorded(athlete, start.date(), str(sport or "other"), min(seconds, LONGEST), power, heart)


def _by_second(times: Sequence[Any], records: Sequence[Any], name: str) -> list[float]:
    """Samples of a field, one a second: a short gap repeats the sample before it, a pause is left out."""
    found: list[float] = []
    last: datetime | None = None
    for time, record in zip(times, records, strict=True):
        value = record.get_value(name, fallback=None)
        if not isinstance(value, int | float) or not isinstance(time, datetime):
            continue
        gap = round((time - last).total_seconds()) if last is not None else 1
        if 1 < gap <= LONGEST_GAP:
            found += [found[-1]] * (gap - 1)
        if gap > 0:
            found.append(float(value))
        last = time
    return found[:LONGEST]
