"""An athlete whose state is known, answers about her, and a model that says what it is told to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from fieldtune.records import Message
from fieldtune.store.database import Database
from fieldtune.store.fitness import Workout, reading, writing
from fieldtune.tasks.fitness.athletes import Done, History
from fieldtune.tasks.fitness.hybrid.coach import HybridCoach
from fieldtune.tasks.fitness.hybrid.context import add_history
from fieldtune.tasks.fitness.load import Load
from fieldtune.tasks.fitness.schema import Athlete, PlannedWorkout, Thresholds, day_of

TODAY = date(2026, 3, 4)  # a Wednesday
MONDAY = date(2026, 3, 9)
PLAN = (
    (1, "Threshold run", 60, "threshold", 80),
    (3, "Long run", 120, "easy", 90),
    (6, "Easy run", 50, "easy", 38),
    (8, "Threshold run", 60, "threshold", 80),
    (10, "Long run", 120, "easy", 90),
)  # days from TODAY, name, minutes, intensity, TSS
MESSAGE = "Threshold run is now 45 minutes."


def history(days: int = 60, tss: float = 42.0, load: float = 45.0, name: str = "Mara") -> History:
    """A runner with the same session each day up to yesterday. load: CTL and ATL before the first."""
    first = TODAY - timedelta(days)
    done = [Done(first + timedelta(number), "running", 50, tss) for number in range(days)]
    who = Athlete(name=name, primary_sport="running", thresholds=Thresholds(lthr_bpm=168))
    return History(who, first, TODAY - timedelta(1), done, Load(load, load), 4)


def plan() -> list[PlannedWorkout]:
    return [
        PlannedWorkout(
            id=f"w{number}",
            date=TODAY + timedelta(ahead),
            day=day_of(TODAY + timedelta(ahead)),
            name=name,
            sport="running",
            duration_minutes=minutes,
            intensity=level,  # type: ignore[arg-type]
            estimated_tss=tss,
        )
        for number, (ahead, name, minutes, level, tss) in enumerate(PLAN, 1)
    ]


def add(database: Database, **more: Any) -> int:
    """The athlete in a database; her number."""
    with writing(database) as book:
        return add_history(book, history(**more), plan())


def plan_of(database: Database, number: int) -> list[Workout]:
    with reading(database) as book:
        return book.workouts(number)


def shorter(to: int = 45, tss: int = 60) -> dict[str, Any]:
    """The right answer to too little time."""
    changes = {"duration_minutes": {"from": 60, "to": to}, "estimated_tss": {"from": 80, "to": tss}}
    item = {"workout_id": "w1", "date": "2026-03-05", "action": "modify", "changes": changes}
    return {"decision": "change", "modifications": [item], "new_workouts": [], "athlete_message": MESSAGE}


def skip(workout: str = "w1", day: str = "2026-03-05", message: str = "Rest, and see a doctor.") -> dict[str, Any]:
    item = {"workout_id": workout, "date": day, "action": "skip"}
    return {"decision": "change", "modifications": [item], "new_workouts": [], "athlete_message": message}


def week(*workouts: tuple[int, str, int, int], **more: Any) -> dict[str, Any]:
    """A weekly plan. workouts: weekday from 0, name, minutes, TSS."""
    items = []
    for ahead, name, minutes, tss in workouts:
        day = MONDAY + timedelta(ahead)
        item = {"day": day_of(day), "date": str(day), "name": name, "sport": "running"}
        items.append({**item, "duration_minutes": minutes, "estimated_tss": tss})
    total, hours = sum(item[3] for item in workouts), round(sum(item[2] for item in workouts) / 60, 1)
    summary = {"focus": "steady", "total_tss": total, "total_hours": hours, "key_sessions": [workouts[-1][1]]}
    return {"plan_summary": summary, "workouts": items, "athlete_message": "A steady week."} | more


RIGHT_WEEK = week((1, "Easy run", 40, 30), (3, "Threshold run", 60, 80), (5, "Long run", 120, 90))


class Scripted:
    """A model that gives one answer after the other; what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self._answers = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
        self.asked: list[Sequence[Message]] = []

    def __call__(self, turns: Sequence[Message], kind: str) -> str:
        self.asked.append(turns)
        return self._answers[len(self.asked) - 1]


def coach(database: Database, *answers: Any) -> HybridCoach:
    return HybridCoach(database, Scripted(*answers), "scripted")
