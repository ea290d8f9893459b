"""The workout modifier: a model's words to a changed plan, or the reasons why not. It knows no database.

An answer passes, in this order: JSON; the schema; the rules between fields and against the plan as told; plain text;
safety, against the whole plan; and the plan that it leads to must be a plan.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fieldtune.sources.json_text import NotJson
from fieldtune.store.fitness import Workout
from fieldtune.tasks.fitness import rules, safety
from fieldtune.tasks.fitness.hybrid.context import Told, planned
from fieldtune.tasks.fitness.schema import (
    ANSWERS,
    Intensity,
    Kind,
    Modification,
    NewWorkout,
    Part,
    PlanModification,
    WeeklyPlan,
    WeekWorkout,
)
from fieldtune.tasks.fitness.sessions import TSS_PER_HOUR
from fieldtune.tasks.fitness.validation import Problem, check_answer, parse_part, read_answer

MOST_PLANNED = 40  # workouts in fourteen days, as many as a context holds
JOINERS = "\u200c\u200d"  # within letters of some scripts, and within emoji


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that is right (its plan is what comes of it) or the problems of one that is not.

    mends: what had to be mended to read it.
    """

    answer: Part | None
    plan: tuple[Workout, ...]
    problems: tuple[Problem, ...] = ()
    mends: tuple[str, ...] = ()


def judge(kind: Kind, text: str, told: Told, words: str) -> Judged:
    """A model's words on a request of a kind. words: what the athlete wrote."""
    try:
        value, mends = read_answer(text)
    except NotJson as error:
        return _refused(Problem("json", "", str(error)))
    answer, problems = parse_part(ANSWERS[kind], value)
    if answer is None:
        return _refused(*problems)
    problems = [*check_answer(kind, value, told.context), *_plain_text(value)]
    if problems:  # safety is judged on an answer that agrees with the plan
        return _refused(*problems)
    plan = changed_plan(answer, told)
    problems = [*safety.check(answer, told.whole, words), *_is_plan(plan, told)]
    return _refused(*problems) if problems else Judged(answer, tuple(plan), mends=mends)


def _refused(*problems: Problem) -> Judged:
    return Judged(None, (), problems)


def changed_plan(answer: Part, told: Told) -> list[Workout]:
    """The plan of the fourteen days after an answer that agrees with it; new workouts have id 0."""
    if isinstance(answer, WeeklyPlan):
        monday = told.context.week_start
        assert monday is not None
        kept = [item for item in told.plan if not monday <= item.date <= monday + timedelta(6)]
        return _ordered([*kept, *(_new(item) for item in answer.workouts)])
    assert isinstance(answer, PlanModification)
    changes = {told.names[item.workout_id].id: item for item in answer.modifications}
    after = [new for item in told.plan if (new := _changed(item, changes.get(item.id))) is not None]
    return _ordered([*after, *(_new(item) for item in answer.new_workouts)])


def _ordered(plan: Sequence[Workout]) -> list[Workout]:
    """By day; what is new comes after what was there."""
    return sorted(plan, key=lambda item: (item.date, item.id == 0, item.id))


def _changed(item: Workout, change: Modification | None) -> Workout | None:
    if change is None:
        return item
    if change.action == "skip":
        return None
    new = change.changes
    assert new is not None
    minutes = new.duration_minutes.to if new.duration_minutes else item.minutes
    tss = new.estimated_tss.to if new.estimated_tss else item.tss
    level = new.intensity.to if new.intensity else item.intensity
    if change.action == "modify":
        named = replace(item, name=new.name or item.name, notes=new.notes or item.notes)
        return replace(named, minutes=minutes, tss=tss, intensity=level)
    sport = new.sport or item.sport
    if new.intensity is None:
        level = intensity_of(sport, minutes, tss)
    return Workout(item.id, item.date, new.name or item.name, sport, minutes, level, tss, notes=new.notes)


def _new(item: NewWorkout | WeekWorkout) -> Workout:
    minutes, tss = item.duration_minutes, item.estimated_tss
    level = item.intensity or intensity_of(item.sport, minutes, tss)
    steps = [step.model_dump(mode="json", exclude_none=True) for step in item.steps] if item.steps else None
    return Workout(0, item.date, item.name, item.sport, minutes, level, tss, item.description, steps=steps)


def intensity_of(sport: str, minutes: int, tss: int) -> Intensity:
    """The intensity of a workout whose answer names none: the one whose TSS an hour is nearest."""
    if sport == "rest" or not minutes:
        return "rest"
    rate = tss * 60 / minutes
    levels: list[Intensity] = [level for level in TSS_PER_HOUR if level != "rest"]
    return min(levels, key=lambda level: abs(TSS_PER_HOUR[level] - rate))


def _is_plan(plan: Sequence[Workout], told: Told) -> Iterator[Problem]:
    """What is wrong with a plan, whoever made it: each answer may be right and the plan no longer one."""
    for item in plan:
        if (item.sport == "rest") != (item.intensity == "rest"):
            text = f"given intensity {item.intensity} for sport {item.sport} on {item.date}; allowed: rest with rest"
            yield Problem("rules", "", text)
        if item.sport == "rest" and (item.minutes or item.tss):
            text = f"given {item.minutes} minutes, TSS {item.tss} for rest on {item.date}; allowed: 0 and 0"
            yield Problem("rules", "", text)
    if len(plan) > MOST_PLANNED:
        yield Problem("rules", "", f"given a plan of {len(plan)} workouts in fourteen days; allowed: {MOST_PLANNED}")
        return
    after = told.whole.model_copy(update={"upcoming_workouts": planned(plan)})
    for field, text in rules.context(after):
        yield Problem("rules", "", f"the plan after it: {field}: {text}")


def _plain_text(value: Any, field: str = "") -> Iterator[Problem]:
    """Letters that no plan needs and that could hide something: control characters, turned or invisible text."""
    if isinstance(value, str):
        if bad := unprintable(value, JOINERS + ("\n" if field == "athlete_message" else "")):
            yield Problem("rules", field, f"given the character U+{ord(bad):04X}; allowed: printable text")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _plain_text(item, f"{field}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _plain_text(item, f"{field}[{number}]")


def unprintable(text: str, but: str) -> str:
    """The first control, format or surrogate character, `but` for some; empty if there is none."""
    return next((letter for letter in text if letter not in but and unicodedata.category(letter)[0] == "C"), "")
