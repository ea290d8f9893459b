"""The coaching rules: an athlete's state and wish to a decision. They read facts, never the athlete's words.

The order is health, then exhaustion, then what the athlete asks for:

    red_flag, illness           the next workout is skipped
    injury                      the next workout becomes half an hour of recovery in another sport
    little_data                 nothing is raised or added; tired athletes still train less
    overreached                 the next workout is skipped, whatever was asked
    very_fatigued               the next workout is halved and easy, whatever was asked
    time, day_off, no_equipment the workout of the named day is shortened, skipped, or replaced in the same way
    tired                       the next workout is cut to three quarters
    more, extra                 when fresh or detraining: a fifth more, or half an easy hour that day; else nothing
    fine, catch_up, off_topic   nothing changes: missed training is not made up for, and other questions are refused
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date as Date
from datetime import timedelta
from typing import Literal

from fieldtune.tasks.fitness.load import intensity_tss
from fieldtune.tasks.fitness.schema import Context, Intensity, PlannedWorkout, Sport
from fieldtune.tasks.fitness.sessions import (
    TSS_PER_HOUR,
    UNKNOWN_WEEK,
    Session,
    other_sport,
    session,
    session_of_tss,
)

Reason = Literal[
    "red_flag",
    "illness",
    "injury",
    "time",
    "day_off",
    "no_equipment",
    "tired",
    "more",
    "extra",
    "fine",
    "catch_up",
    "off_topic",
]
Action = Literal["modify", "skip", "replace", "add", "none"]

EXHAUSTED = ("overreached", "very_fatigued")
RESTED = ("fresh", "detraining")
HALF, CUT, RAISE = 0.5, 0.75, 1.2  # of the duration
SPARE_MINUTES = 30  # of an easy session in another sport, or of an extra one
# Of 7 * CTL, what a week shall come to.
WEEK_FACTOR = {
    "overreached": 0.5,
    "very_fatigued": 0.65,
    "fatigued": 0.85,
    "balanced": 1.0,
    "fresh": 1.1,
    "detraining": 1.1,
    "unknown": 1.0,
}
# Kinds of session and their share of the week, by number of training days; the last one is the longest.
WEEK_SHAPES: dict[int, tuple[tuple[str, float], ...]] = {
    2: (("easy", 0.45), ("long", 0.55)),
    3: (("threshold", 0.30), ("easy", 0.30), ("long", 0.40)),
    4: (("easy", 0.20), ("threshold", 0.25), ("recovery", 0.15), ("long", 0.40)),
    5: (("easy", 0.18), ("threshold", 0.20), ("recovery", 0.12), ("moderate", 0.18), ("long", 0.32)),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the athlete is about. workout: the one named (an index of the plan). minutes: all the time there is that
    day. date: the free day of `extra`."""

    reason: Reason
    workout: int = 0
    minutes: int = 0
    date: Date | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """cause: the reason that decided, or the form's status. new: the workout as it shall be, or the one added."""

    action: Action
    cause: str
    workout: PlannedWorkout | None = None
    new: Session | None = None
    date: Date | None = None


def decide(told: Context, wish: Wish) -> Decision:
    """What changes in the plan; see the module."""
    status, plan = told.current_metrics.form_status, told.upcoming_workouts
    first = plan[0]
    if wish.reason in ("red_flag", "illness"):
        return Decision("skip", wish.reason, first)
    if wish.reason == "injury":
        return Decision("replace", "injury", first, _spared(first))
    if status == "overreached":
        return Decision("skip", status, first)
    if status == "very_fatigued":
        return Decision("modify", status, first, _scaled(first, HALF, "easy"))
    named = plan[wish.workout]
    if wish.reason == "time":
        return Decision("modify", "time", named, _scaled(named, wish.minutes / named.duration_minutes))
    if wish.reason == "day_off":
        return Decision("skip", "day_off", named)
    if wish.reason == "no_equipment":
        return Decision("replace", "no_equipment", named, _spared(named))
    if wish.reason == "tired":
        return Decision("modify", "tired", first, _scaled(first, CUT))
    if wish.reason == "more" and status in RESTED:
        return Decision("modify", "more", first, _scaled(first, RAISE))
    if wish.reason == "extra" and status in RESTED:
        extra = session(told.athlete.primary_sport, "easy", SPARE_MINUTES)
        return Decision("add", "extra", None, extra, wish.date)
    return Decision("none", "little_data" if status == "unknown" and wish.reason in ("more", "extra") else wish.reason)


def _scaled(planned: PlannedWorkout, factor: float, highest: Intensity | None = None) -> Session:
    """The workout at a share of its duration, in steps of five minutes; not harder than `highest`."""
    minutes = max(10, 5 * round(planned.duration_minutes * factor / 5))
    level = planned.intensity
    if highest is not None and TSS_PER_HOUR[level] > TSS_PER_HOUR[highest]:
        level = highest
    if level == planned.intensity:
        tss = max(1, planned.estimated_tss * minutes // planned.duration_minutes)
    else:
        tss = intensity_tss(minutes, TSS_PER_HOUR[level])
    return Session(planned.name, planned.sport, minutes, level, tss)


def _spared(planned: PlannedWorkout) -> Session:
    """Half an hour of recovery in another sport; never more than was planned."""
    return session(other_sport(planned.sport), "recovery", min(SPARE_MINUTES, planned.duration_minutes))


def week(told: Context, days: list[int], hurt: bool) -> list[tuple[Date, Session]]:
    """The sessions of the week that begins at `week_start`. days: weekdays with time, ascending; 2 to 5 are used.

    Tired or hurt athletes train without hard sessions; hurt ones in another sport.
    """
    assert told.week_start is not None
    metrics, sport = told.current_metrics, told.athlete.primary_sport
    status = metrics.form_status
    total = UNKNOWN_WEEK if metrics.fitness_ctl is None else 7 * metrics.fitness_ctl * WEEK_FACTOR[status]
    if hurt:
        total, sport = total * HALF, other_sport(sport)
    gentle = hurt or status in (*EXHAUSTED, "unknown")
    found = []
    for day, (kind, share) in zip(days, WEEK_SHAPES[len(days)], strict=True):
        kind = "easy" if gentle and kind in ("threshold", "moderate") else kind
        found.append((told.week_start + timedelta(day), session_of_tss(sport, kind, share * total)))
    return found


def affected(sport: Sport) -> tuple[str, ...]:
    """Parts of the body that a sport strains."""
    return {
        "running": ("knee", "Achilles tendon", "calf", "shin"),
        "cycling": ("knee", "hip", "lower back"),
        "rowing": ("lower back", "wrist", "shoulder"),
    }.get(sport, ("shoulder", "elbow", "neck"))
