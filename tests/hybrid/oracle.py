"""An independent judge of what an answer did to a plan: reads rows by SQL, and shares no code with the modifier."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import text

from fieldtune.store.database import Database

SPORTS = {"running", "cycling", "swimming", "rowing", "strength", "other", "rest"}
LEVELS = {"rest": 0, "recovery": 30, "easy": 45, "moderate": 60, "threshold": 80, "vo2max": 95}  # TSS an hour
COLUMNS = ("id", "athlete_id", "date", "name", "sport", "minutes", "intensity", "tss", "description", "notes", "steps")
Row = dict[str, Any]


@dataclass(frozen=True)
class State:
    """What is known of an athlete. ctl, tsb: None with less than 28 days of log."""

    number: int
    today: date
    ctl: float | None
    tsb: float | None
    hurt: bool = False


def rows(database: Database) -> list[Row]:
    """Every planned workout of every athlete."""
    with database.reading() as session:
        found = session.execute(text(f"SELECT {', '.join(COLUMNS)} FROM fitness_workouts ORDER BY date, id"))
        return [dict(zip(COLUMNS, map(str_or_none, row), strict=True)) for row in found]


def str_or_none(value: Any) -> Any:
    return str(value) if isinstance(value, date) else value


def verify(state: State, before: Sequence[Row], after: Sequence[Row], answer: str) -> None:
    """AssertionError if the rows after are not what this answer asks for, or not fit for the athlete."""
    mine = [[row for row in plan if row["athlete_id"] == state.number] for plan in (before, after)]
    others = [[row for row in plan if row["athlete_id"] != state.number] for plan in (before, after)]
    assert others[0] == others[1], "another athlete's plan changed"
    said = _read(answer)
    ahead = [[row for row in plan if _ahead(row, state.today) is not None] for plan in mine]
    expected = _week(said, ahead[0], state) if "workouts" in said else _changes(said, ahead[0], state)
    assert [_plain(row) for row in expected] == sorted(map(_plain, ahead[1])), "not what the answer says"
    assert [row for row in mine[0] if row not in ahead[0]] == [row for row in mine[1] if row not in ahead[1]]
    for row in mine[1]:
        _fit(row)
    _bearable(state, *ahead, "workouts" in said)


def _ahead(row: Row, today: date) -> int | None:
    days = (date.fromisoformat(row["date"]) - today).days
    return days if 0 <= days < 14 else None


def _read(answer: str) -> dict[str, Any]:
    body = answer[answer.index("{") : answer.rindex("}") + 1]
    try:
        found = json.loads(body)
    except ValueError:
        found = json.loads(re.sub(r",(\s*[}\]])", r"\1", body))
    assert isinstance(found, dict)
    return found


def _plain(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("date", "name", "sport", "minutes", "intensity", "tss"))


def _level(sport: str, minutes: int, tss: int) -> str:
    if sport == "rest":
        return "rest"
    levels = [name for name in LEVELS if name != "rest"]
    return min(levels, key=lambda name: abs(LEVELS[name] * minutes - tss * 60))


def _changes(said: Mapping[str, Any], plan: Sequence[Row], state: State) -> list[Row]:
    named = [row for row in plan if row["sport"] != "rest"][:3]
    result = {row["id"]: dict(row) for row in plan}
    for item in said["modifications"]:
        row = named[int(item["workout_id"].removeprefix("w")) - 1]
        assert item["date"] == row["date"]
        new, changes = result[row["id"]], item.get("changes") or {}
        if item["action"] == "skip":
            del result[row["id"]]
            continue
        for key, column in (("duration_minutes", "minutes"), ("estimated_tss", "tss"), ("intensity", "intensity")):
            if changes.get(key):
                assert changes[key]["from"] == row[column]
                new[column] = changes[key]["to"]
        new |= {key: changes[key] for key in ("name", "sport") if changes.get(key)}
        if item["action"] == "replace" and not changes.get("intensity"):
            new["intensity"] = _level(new["sport"], new["minutes"], new["tss"])
    return sorted([*result.values(), *map(_new, said["new_workouts"])], key=_plain)


def _week(said: Mapping[str, Any], plan: Sequence[Row], state: State) -> list[Row]:
    monday = state.today + timedelta(7 - state.today.weekday())
    week = {str(monday + timedelta(days)) for days in range(7)}
    assert {item["date"] for item in said["workouts"]} <= week
    kept = [row for row in plan if row["date"] not in week]
    return sorted([*kept, *map(_new, said["workouts"])], key=_plain)


def _new(item: Mapping[str, Any]) -> Row:
    minutes, tss = item["duration_minutes"], item["estimated_tss"]
    level = item.get("intensity") or _level(item["sport"], minutes, tss)
    work = {"date": item["date"], "name": item["name"], "sport": item["sport"]}
    return {**work, "minutes": minutes, "tss": tss, "intensity": level}


def _fit(row: Row) -> None:
    assert row["sport"] in SPORTS and row["intensity"] in LEVELS
    assert type(row["minutes"]) is int and type(row["tss"]) is int
    rests = row["sport"] == "rest"
    assert rests == (row["intensity"] == "rest") == (row["minutes"] == 0) == (row["tss"] == 0)
    assert rests or (5 <= row["minutes"] <= 480 and 1 <= row["tss"] <= 500)
    assert rests or row["tss"] <= 150 * (row["minutes"] + 2) / 60
    for name in ("name", "description", "notes"):
        assert row[name] is None or (row[name] and row[name].isprintable() and len(row[name]) <= 200)
    assert len(row["name"]) <= 60


def _bearable(state: State, before: Sequence[Row], after: Sequence[Row], week: bool) -> None:
    old = {row["id"]: row for row in before}
    grown = [row for row in after if row["id"] in old and row["tss"] > old[row["id"]]["tss"]]
    longer = [row for row in after if row["id"] in old and row["minutes"] > old[row["id"]]["minutes"]]
    added = [row for row in after if row["id"] not in old and row["sport"] != "rest"]
    assert all(row["tss"] <= 1.25 * old[row["id"]]["tss"] for row in grown)
    assert all(row["minutes"] <= 1.25 * old[row["id"]]["minutes"] for row in longer)
    tired = state.tsb is not None and state.tsb < -20
    if week:
        most = 200 if state.ctl is None else max(120, (0.8 if tired else 1.2) * 7 * state.ctl)
        assert sum(row["tss"] for row in added) <= most and len({row["date"] for row in added}) <= 6
        assert not state.hurt or all(row["tss"] * 60 <= 50 * row["minutes"] for row in added)
    else:
        assert not (tired or state.hurt or state.ctl is None) or not (grown or longer or added)
        if tired or state.hurt:
            _next_is_lighter(state, old, after)
    if state.ctl is not None and not week:
        for ahead in range(14):
            first, last = (str(state.today + timedelta(ahead + days)) for days in (0, 6))
            then, now = (sum(row["tss"] for row in plan if first <= row["date"] <= last) for plan in (after, before))
            assert then <= max(120, 1.3 * 7 * state.ctl) + 0.5 or then <= now


def _next_is_lighter(state: State, old: Mapping[int, Row], after: Sequence[Row]) -> None:
    following = min((row for row in old.values() if row["sport"] != "rest"), key=lambda row: (row["date"], row["id"]))
    left = [row for row in after if row["id"] == following["id"]]
    if state.hurt:
        assert not left or left[0]["tss"] * 60 <= 50 * max(1, left[0]["minutes"])
    elif (date.fromisoformat(following["date"]) - state.today).days <= 1:
        assert not left or left[0]["tss"] < following["tss"]
