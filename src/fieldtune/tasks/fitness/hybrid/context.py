"""From the database to what a coach is told, by the code that makes training rows; and athletes into the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date as Date
from datetime import timedelta
from typing import cast

from fieldtune.errors import UserError
from fieldtune.store.fitness import Book, Logged, StoredAthlete, Workout
from fieldtune.tasks.fitness.athletes import PLANNED, Done, History
from fieldtune.tasks.fitness.load import Load
from fieldtune.tasks.fitness.rules import AHEAD_DAYS
from fieldtune.tasks.fitness.schema import (
    Athlete,
    Context,
    Intensity,
    Kind,
    PlannedWorkout,
    Sport,
    Thresholds,
    day_of,
)

# Upcoming workouts told with each kind, as in the training rows.
TOLD: dict[Kind, int] = {"coaching": 2, "plan_modification": PLANNED, "weekly_plan": 0}


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer is made from and judged by, at one moment of the database.

    plan: all workouts from `today` on for fourteen days. context: what the model is told. whole: the same with the
    whole plan, for the rules of load and rest. Workouts are named w1, w2, ... in both; rest days have no name.
    """

    athlete: StoredAthlete
    plan: tuple[Workout, ...]
    context: Context
    whole: Context

    @property
    def names(self) -> dict[str, Workout]:
        """The workouts by the names they have in the context."""
        return {f"w{number}": item for number, item in enumerate(_trained(self.plan), 1)}


def told(book: Book, number: int, today: Date, kind: Kind, *, lock: bool = False) -> Told:
    """An athlete's state on the morning of a day. lock: nobody else changes the plan until the transaction ends.

    `UserError` for an athlete who is not there, and for a day before the log begins.
    """
    athlete = book.athlete(number, lock=lock)
    if today < athlete.first:
        raise UserError(
            f"today={today} is before the log of athlete {number} begins; allowed: {athlete.first} or later"
        )
    plan = tuple(book.workouts(number, today, today + timedelta(AHEAD_DAYS - 1)))
    history = _history(athlete, book.sessions(number, today), today)
    named = planned(plan)
    monday = today + timedelta(7 - today.weekday()) if kind == "weekly_plan" else None
    context = history.context(today, named[: TOLD[kind]], monday)
    return Told(athlete, plan, context, context.model_copy(update={"upcoming_workouts": named}))


def planned(plan: Sequence[Workout]) -> list[PlannedWorkout]:
    """A plan's workouts under their short names, without days of rest."""
    return [
        PlannedWorkout(
            id=f"w{number}",
            date=item.date,
            day=day_of(item.date),
            name=item.name,
            sport=cast(Sport, item.sport),
            duration_minutes=item.minutes,
            intensity=cast(Intensity, item.intensity),
            estimated_tss=item.tss,
        )
        for number, item in enumerate(_trained(plan), 1)
    ]


def _trained(plan: Sequence[Workout]) -> list[Workout]:
    return [item for item in plan if item.sport != "rest"]


def _history(athlete: StoredAthlete, log: Sequence[Logged], today: Date) -> History:
    """The log up to yesterday; a day without a session is a day of rest."""
    sport, limits = cast(Sport, athlete.primary_sport), Thresholds(**athlete.thresholds)
    who = Athlete(name=athlete.name, primary_sport=sport, thresholds=limits)
    done = [Done(item.date, cast(Sport, item.sport), item.minutes, item.tss) for item in log]
    start = Load(athlete.start_ctl, athlete.start_atl)
    return History(who, athlete.first, today - timedelta(1), done, start, athlete.days_a_week)


def add_history(book: Book, history: History, plan: Sequence[PlannedWorkout]) -> int:
    """A new athlete with this log and plan; returns the number."""
    who = history.athlete
    number = book.add_athlete(
        StoredAthlete(
            0,
            who.name,
            who.primary_sport,
            who.thresholds.model_dump(),
            history.first,
            history.start.ctl,
            history.start.atl,
            history.days_a_week,
        )
    )
    book.add_sessions(number, logged(history))
    book.put_plan(book.athlete(number, lock=True), (), [_stored(item) for item in plan])
    return number


def extend_log(book: Book, number: int, history: History) -> int:
    """Sessions of a log that an athlete's own does not have yet; returns how many.

    A session is known by day, sport and minutes: its TSS may come from thresholds that have moved.
    """
    athlete = book.athlete(number, lock=True)
    there = [(item.date, item.sport, item.minutes) for item in book.sessions(number)]
    new: list[Logged] = []
    for item in logged(history):
        known = (item.date, item.sport, item.minutes)
        if known in there:
            there.remove(known)
        elif item.date >= athlete.first:
            new.append(item)
        else:
            raise UserError(
                f"the log begins on {item.date}, that of athlete {number} on {athlete.first}; add a new athlete"
            )
    book.add_sessions(number, new)
    return len(new)


def logged(history: History) -> list[Logged]:
    """The sessions of a history as rows of the log."""
    return [Logged(item.date, item.sport, item.minutes, item.tss) for item in history.done]


def _stored(item: PlannedWorkout) -> Workout:
    return Workout(0, item.date, item.name, item.sport, item.duration_minutes, item.intensity, item.estimated_tss)


def usual_plan(history: History, today: Date) -> list[PlannedWorkout]:
    """Fourteen days of the athlete's usual week, at the load of this day; without sessions since the log's end."""
    whole = replace(history, last=max(history.last, today - timedelta(1)))
    return whole.plan(today, AHEAD_DAYS)


def shifted(history: History, today: Date) -> History:
    """A simulated history moved by whole weeks, so that it ends on the day before `today`."""
    days = (today - timedelta(1) - history.last).days
    move = timedelta(7 * -(-days // 7))
    done = [Done(item.date + move, item.sport, item.minutes, item.tss) for item in history.done]
    kept = [item for item in done if item.date < today]
    return History(
        history.athlete, history.first + move, today - timedelta(1), kept, history.start, history.days_a_week
    )
