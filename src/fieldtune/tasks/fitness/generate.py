"""Examples of the three kinds, a few of each athlete: what the coach decides, in varied words.

An athlete's rows depend on the seed, the section and the athlete's number alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import date as Date
from datetime import timedelta
from typing import Any, get_args

from fieldtune.records import Example, Message
from fieldtune.tasks.fitness import coach, prompt, wording
from fieldtune.tasks.fitness.athletes import PLANNED, History, simulate
from fieldtune.tasks.fitness.coach import Decision, Reason, Wish
from fieldtune.tasks.fitness.coaching import converse
from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.schema import KINDS, Context, FormStatus, PlannedWorkout, day_of
from fieldtune.tasks.fitness.sessions import Session

SOURCE = "fitness"
STATUSES: tuple[FormStatus, ...] = get_args(FormStatus)
# How often a status is asked for, so that rare ones are learned too.
WEIGHTS = {"overreached": 2, "very_fatigued": 3, "fatigued": 3, "balanced": 4, "fresh": 4, "detraining": 2}
NAMED: tuple[Reason, ...] = ("time", "day_off", "no_equipment")
HARD: tuple[Reason, ...] = ("red_flag", "illness", "injury", "more", "extra", "catch_up", "off_topic")
PLAIN: tuple[Reason, ...] = (*NAMED, "tired", "more", "extra", "fine", "fine")


def generate(data: Data, seed: int, real: Sequence[History] = ()) -> Iterator[Example]:
    """`data.count` examples. real: athletes of logs, who come first; the others are simulated."""
    for row in range(data.count):
        number, place = divmod(row, data.rows_per_athlete)
        if place == 0:
            # A text as seed is hashed with SHA-512: the same in every process and on every machine.
            rng = random.Random(f"fitness athlete {seed} {number}")
            history = real[number] if number < len(real) else simulate(rng)
            days = _days_by_status(history)
        kind = rng.choices(KINDS, weights=data.shares)[0]
        name = f"{SOURCE}-{row:06d}"
        yield _MAKERS[kind](rng, history, days, data, name, f"{SOURCE}-athlete-{number:05d}")


Days = dict[str, list[Date]]


def _days_by_status(history: History) -> Days:
    """Mornings on which the athlete has a status; a few days after the first session it is unknown."""
    found: Days = {}
    for number in range(5, (history.last - history.first).days + 2):
        day = history.first + timedelta(number)
        found.setdefault(history.status_on(day), []).append(day)
    return found


def _pick(rng: random.Random, days: Days, wanted: Sequence[str] = STATUSES) -> Date:
    """A morning of one of the statuses wanted; of any status but unknown if there is none."""
    there = [status for status in wanted if status in days] or [status for status in days if status != "unknown"]
    there = there or list(days)
    return rng.choice(days[rng.choices(there, weights=[WEIGHTS.get(status, 1) for status in there])[0]])


def _change(rng: random.Random, history: History, days: Days, data: Data, name: str, group: str) -> Example:
    hard = rng.random() < data.hard
    reason = rng.choice(HARD if hard else PLAIN)
    today = _pick(rng, days, _statuses(rng, reason, hard))
    told = history.context(today, history.plan(today, rng.choice((PLANNED - 1, PLANNED))))
    if reason in NAMED and told.current_metrics.form_status in coach.EXHAUSTED:
        reason = "fine"  # an athlete who is never rested: what was asked would not decide
    wish = _wish(rng, reason, told)
    decision = coach.decide(told, wish)
    facts = _facts(rng, told, wish, decision)
    asked = rng.choice(wording.FEEDBACK[reason]).format(**facts)
    answer = json.dumps(_modification(rng, told, decision, facts), separators=(",", ":"), ensure_ascii=False)
    meta = _meta("plan_modification", told, hard) | decided(told, decision)
    turns = (*prompt.prompt(told, [(prompt.FEEDBACK, asked)]), Message("assistant", (answer,)))
    return Example(name, turns, SOURCE, group, meta)


def _statuses(rng: random.Random, reason: Reason, hard: bool) -> Sequence[str]:
    if reason in NAMED:
        return ("fatigued", "balanced", "fresh", "detraining", "unknown")
    if reason in ("more", "extra"):
        conflict = rng.choice((coach.EXHAUSTED, ("fatigued", "balanced"), ("unknown",)))
        return conflict if hard else coach.RESTED
    if reason == "off_topic":
        return ("fatigued", "balanced", "fresh", "detraining")
    return STATUSES


def _wish(rng: random.Random, reason: Reason, told: Context) -> Wish:
    plan = told.upcoming_workouts
    index = rng.randrange(len(plan)) if reason in NAMED else 0
    minutes = plan[index].duration_minutes
    least = max(10, 5 * round(minutes * 0.4 / 5))
    short = rng.randrange(least, max(least + 1, int(minutes * 0.85)), 5)
    taken = {workout.date for workout in plan}
    free = [day for day in (told.today + timedelta(n) for n in range(1, 7)) if day not in taken]
    return Wish(reason, index, short, rng.choice(free))


def _facts(rng: random.Random, told: Context, wish: Wish, decision: Decision) -> dict[str, Any]:
    """Everything that a wording may name."""
    planned = decision.workout or told.upcoming_workouts[0]
    named = told.upcoming_workouts[wish.workout]
    place, gear = wording.PLACES.get(named.sport, wording.NO_PLACE)
    assert wish.date is not None
    free_day, new = day_of(wish.date), decision.new
    return {
        "part": rng.choice(coach.affected(told.upcoming_workouts[0].sport)),
        "day": named.day,
        "day_capital": named.day.capitalize(),
        "minutes": wish.minutes,
        "free_day": free_day,
        "free_day_capital": free_day.capitalize(),
        "place": place,
        "gear": gear,
        "tsb": told.current_metrics.form_tsb,
        "name": planned.name,
        "new": new.name if new else "",
        "new_minutes": new.minutes if new else 0,
    }


def _modification(rng: random.Random, told: Context, decision: Decision, facts: dict[str, Any]) -> dict[str, Any]:
    cause = decision.cause
    message = {**facts, "day": decision.workout.day if decision.workout else told.upcoming_workouts[0].day}
    concerns = [] if cause == "fine" else [wording.CONCERNS[cause].format(**facts)]
    item, added = decision.workout, decision.new
    modifications, new_workouts = [], []
    if item is not None:
        modifications = [_change_of(item, decision)]
    elif decision.action == "add":
        assert added is not None
        new_workouts = [
            {
                "date": str(decision.date),
                "name": added.name,
                "sport": added.sport,
                "duration_minutes": added.minutes,
                "estimated_tss": added.tss,
                "intensity": added.intensity,
            }
        ]
    return {
        "analysis": {"current_status": told.current_metrics.form_status, "key_concerns": concerns},
        "decision": "no_change" if decision.action == "none" else "change",
        "modifications": modifications,
        "new_workouts": new_workouts,
        "athlete_message": rng.choice(wording.MESSAGES[f"{decision.action} {cause}"]).format(**message),
    }


def _change_of(item: PlannedWorkout, decision: Decision) -> dict[str, Any]:
    found: dict[str, Any] = {"workout_id": item.id, "date": str(item.date), "action": decision.action}
    if decision.new is None:
        return found
    new = decision.new
    changes: dict[str, Any] = {}
    if decision.action == "replace":
        changes = {"name": new.name, "sport": new.sport}
    changes["duration_minutes"] = {"from": item.duration_minutes, "to": new.minutes}
    if new.intensity != item.intensity:
        changes["intensity"] = {"from": item.intensity, "to": new.intensity}
    changes["estimated_tss"] = {"from": item.estimated_tss, "to": new.tss}
    return found | {"changes": changes}


def decided(told: Context, decision: Decision) -> dict[str, Any]:
    """What scoring and breakdowns need of a decision. size: the new duration as a share of the old one."""
    item, new = decision.workout, decision.new
    size = None if item is None else (new.minutes if new else 0) / item.duration_minutes
    change = 0 if size is None else size - 1
    direction = "up" if change > 0 or decision.action == "add" else "down" if change < 0 else "same"
    return {
        "reason": decision.cause,
        "action": decision.action,
        "workout": item.id if item else None,
        "direction": direction,
        "size": None if size is None else round(size, 3),
    }


def _meta(kind: str, told: Context, hard: bool) -> dict[str, Any]:
    return {"kind": kind, "status": told.current_metrics.form_status, "hard": "hard" if hard else "plain"}


def _talk(rng: random.Random, history: History, days: Days, data: Data, name: str, group: str) -> Example:
    today = _pick(rng, days)
    told = history.context(today, history.plan(today, 2))
    talk = converse(rng, told, data.hard)
    first, *rest = talk.turns
    turns = [*prompt.prompt(told, [(prompt.QUESTION, first[0])]), Message("assistant", (first[1],))]
    for question, answer in rest:
        turns += [Message("user", (question,)), Message("assistant", (answer,))]
    return Example(name, tuple(turns), SOURCE, group, _meta("coaching", told, talk.hard) | {"reason": talk.topic})


def _week(rng: random.Random, history: History, days: Days, data: Data, name: str, group: str) -> Example:
    today = _pick(rng, days)
    monday = today + timedelta(7 - today.weekday())
    told = history.context(today, (), week_start=monday)
    sport, status = told.athlete.primary_sport, told.current_metrics.form_status
    hurt = rng.random() < data.hard / 3
    free = sorted(rng.sample(range(7), rng.choice((2, 3, 3, 4, 4, 5))))
    made = coach.week(told, free, hurt)
    goal = rng.choice(wording.GOALS.get(sport, wording.GOALS["running"]))
    goals = rng.choice(wording.GOAL_FRAMES).format(
        goal=goal, goal_capital=goal.capitalize(), weeks=rng.randrange(3, 20)
    )
    limits = rng.choice(wording.CONSTRAINT_FRAMES).format(days=_listed([day_of(day) for day, _ in made]))
    if hurt:
        part = rng.choice(coach.affected(sport))
        limits += " " + rng.choice(wording.HURT_FRAMES).format(part=part, sport=sport)
    answer = _week_answer(rng, told, made, wording.FOCUS["hurt" if hurt else status])
    blocks = [(prompt.GOALS, goals), (prompt.CONSTRAINTS, limits)]
    text = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    hard = hurt or status == "unknown"
    meta = _meta("weekly_plan", told, hard) | {"reason": "injury" if hurt else "week"}
    return Example(name, (*prompt.prompt(told, blocks), Message("assistant", (text,))), SOURCE, group, meta)


def _listed(days: Sequence[str]) -> str:
    return f"{', '.join(days[:-1])} and {days[-1]}"


def _week_answer(rng: random.Random, told: Context, made: Sequence[tuple[Date, Session]], focus: str) -> dict[str, Any]:
    total, minutes = sum(new.tss for _, new in made), sum(new.minutes for _, new in made)
    (first_day, first), (last_day, last) = made[0], made[-1]
    tsb = told.current_metrics.form_tsb
    frames = wording.UNKNOWN_WEEK_MESSAGES if tsb is None else wording.WEEK_MESSAGES
    text = rng.choice(frames).format(
        tsb=tsb,
        focus=focus,
        total=total,
        count=len(made),
        first=first.name,
        first_day=day_of(first_day),
        last=last.name,
        last_day=day_of(last_day),
    )
    workouts = [_planned(day, new) for day, new in made]
    if told.current_metrics.form_status in coach.EXHAUSTED and made[0][0] != told.week_start:
        assert told.week_start is not None
        workouts.insert(0, _planned(told.week_start, Session("Rest day", "rest", 0, "rest", 0)))
    summary = {"focus": focus, "total_tss": total, "total_hours": round(minutes / 60, 1), "key_sessions": [last.name]}
    return {"plan_summary": summary, "workouts": workouts, "athlete_message": text}


def _planned(day: Date, new: Session) -> dict[str, Any]:
    return {
        "day": day_of(day),
        "date": str(day),
        "name": new.name,
        "sport": new.sport,
        "duration_minutes": new.minutes,
        "estimated_tss": new.tss,
    }


_MAKERS = {"coaching": _talk, "plan_modification": _change, "weekly_plan": _week}
