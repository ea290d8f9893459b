"""What can be checked in an answer: JSON, schema, rules between fields, safety, the decision, and figures in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fieldtune.records import Example
from fieldtune.sources.json_text import NotJson, strict_json
from fieldtune.tasks.base import Metric, Score
from fieldtune.tasks.fitness import prompt, safety
from fieldtune.tasks.fitness.schema import ANSWERS, Context, PlanModification, WeeklyPlan
from fieldtune.tasks.fitness.validation import LONGEST, check_answer, parse_part

SIZE_TOLERANCE = 0.1  # of the old duration
LOAD_TOLERANCE = 0.1  # of the reference week's TSS

METRICS = (
    Metric("json", "JSON", "share", "higher", "The answer is one JSON object and nothing else."),
    Metric("schema", "Schema", "share", "higher", "The answer is valid by the JSON Schema of its kind."),
    Metric(
        "rules", "Cross-field rules", "share", "higher", "Sums, dates and from/to agree, with each other and the plan."
    ),
    Metric(
        "safety", "Safety", "share", "higher", "No safety rule is broken; an answer that cannot be read breaks none."
    ),
    Metric("action", "Action", "share", "higher", "modify, skip, replace, add or none, as in the reference."),
    Metric("workout", "Workout", "share", "higher", "The workouts that change are those of the reference."),
    Metric("decision", "Action and workout", "share", "higher", "Both are those of the reference."),
    Metric("direction", "Direction", "share", "higher", "Duration goes down, up or stays, as in the reference."),
    Metric("size", "Size", "share", "higher", "The new duration is within a tenth of the old one of the reference's."),
    Metric("week_days", "Training days", "share", "higher", "The week's training days are those of the reference."),
    Metric("week_load", "Week's load", "share", "higher", "The week's TSS is within a tenth of the reference's."),
    Metric(
        "facts", "Figures", "share", "higher", "A text quotes the reference's figures of the athlete, and no wrong one."
    ),
)

_LABELS = {
    "fitness_ctl": r"(?:fitness|CTL)\W{1,2}(?:\(CTL\)\W{1,2})?(?:of |is |at )?",
    "fatigue_atl": r"(?:fatigue|ATL)\W{1,2}(?:\(ATL\)\W{1,2})?(?:of |is |at )?",
    "form_tsb": r"(?:form|TSB)\W{1,2}(?:\(TSB\)\W{1,2})?(?:of |is |at )?",
    "weekly_tss": r"TSS (?:of |is )?(?=\d+ in the last)",
}
_FIGURE = {name: re.compile(rf"\b{label}(-?\d+(?:\.\d+)?)", re.IGNORECASE) for name, label in _LABELS.items()}
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_BPM = re.compile(r"\b(\d+) ?bpm\b")


def score_answer(example: Example, answer: str) -> Score:
    """Each metric as 0 or 1, None where it does not apply; checks say what is wrong."""
    values: dict[str, float | None] = {metric.name: None for metric in METRICS}
    kind, told = example.meta.get("kind"), context_of(example)
    if kind not in (*ANSWERS, "coaching") or told is None:
        return Score(values)
    words = "\n".join(prompt.words_of(turn.text) for turn in example.prompt if turn.role == "user")
    if kind == "coaching":
        wrong = list(_wrong_facts(example.answer, answer, told))
        unsafe = safety.check_text(answer, words)
        values |= {"facts": float(not wrong), "safety": float(not unsafe)}
        return Score(values, (*wrong, *map(str, unsafe)))
    values |= dict.fromkeys(("json", "schema", "rules", *_FIELDS[kind]), 0.0) | {"safety": 1.0}
    try:
        value = strict_json(answer.strip(), LONGEST)
    except NotJson as error:
        return Score(values, (str(error),))
    values["json"] = 1.0
    parsed, problems = parse_part(ANSWERS[kind], value)
    if parsed is None:
        return Score(values, tuple(map(str, problems)))
    found = check_answer(kind, value, told)
    unsafe = safety.check(parsed, told, words)
    values |= {"schema": 1.0, "rules": float(not found), "safety": float(not unsafe)}
    reference, _ = parse_part(ANSWERS[kind], strict_json(example.answer))
    values |= _fields(parsed, reference, told)
    return Score(values, tuple(map(str, [*found, *unsafe])))


_FIELDS = {
    "plan_modification": ("action", "workout", "decision", "direction", "size"),
    "weekly_plan": ("week_days", "week_load"),
}


def context_of(example: Example) -> Context | None:
    """The context of an example's first user message."""
    text = next((turn.text for turn in example.messages if turn.role == "user"), "")
    told = prompt.context_of(text)
    try:
        return None if told is None else parse_part(Context, strict_json(told))[0]
    except NotJson:
        return None


def _fields(given: Any, wanted: Any, told: Context) -> Mapping[str, float]:
    if isinstance(given, WeeklyPlan) and isinstance(wanted, WeeklyPlan):
        return _week(given, wanted)
    assert isinstance(given, PlanModification)
    if not isinstance(wanted, PlanModification):
        return {}
    (a1, w1, d1, s1), (a2, w2, d2, s2) = facts_of(given, told), facts_of(wanted, told)
    near = s1.keys() == s2.keys() and all(abs(s1[key] - s2[key]) <= SIZE_TOLERANCE for key in s1)
    right = {"action": a1 == a2, "workout": w1 == w2, "decision": (a1, w1) == (a2, w2), "direction": d1 == d2}
    return {name: float(value) for name, value in (right | {"size": near and d1 == d2}).items()}


def facts_of(answer: PlanModification, told: Context) -> tuple[str, tuple[str, ...], str, dict[str, float]]:
    """(actions, workouts, direction, new durations as shares of the old ones) of an answer.

    A new workout counts by its minutes over an hour.
    """
    planned = {workout.id: workout.duration_minutes for workout in told.upcoming_workouts}
    sizes: dict[str, float] = {}
    for item in answer.modifications:
        now = planned.get(item.workout_id) or 1
        minutes = item.changes.duration_minutes if item.changes else None
        sizes[item.workout_id] = 0.0 if item.action == "skip" else (minutes.to / now if minutes else 1.0)
    change = sum(size - 1 for size in sizes.values())
    actions = sorted(item.action for item in answer.modifications) + ["add"] * len(answer.new_workouts)
    sizes |= {str(new.date): new.duration_minutes / 60 for new in answer.new_workouts}
    direction = "up" if answer.new_workouts or change > 0 else "down" if change < 0 else "same"
    workouts = tuple(sorted(item.workout_id for item in answer.modifications))
    return "+".join(actions) or "none", workouts, direction, sizes


def _week(given: WeeklyPlan, wanted: WeeklyPlan) -> dict[str, float]:
    plans: tuple[WeeklyPlan, ...] = (given, wanted)
    days = [{item.date for item in plan.workouts if item.sport != "rest"} for plan in plans]
    loads = [sum(item.estimated_tss for item in plan.workouts) for plan in plans]
    near = abs(loads[0] - loads[1]) <= LOAD_TOLERANCE * loads[1]
    return {"week_days": float(days[0] == days[1]), "week_load": float(near)}


def _wrong_facts(reference: str, answer: str, told: Context) -> Iterator[str]:
    """Figures that are not the athlete's, and figures of the reference that the answer does not give."""
    metrics = told.current_metrics
    for name, pattern in _FIGURE.items():
        true = getattr(metrics, name)
        heard = [float(text) for text in pattern.findall(answer)]
        if any(true is None or abs(value - true) > 0.05 for value in heard):
            yield f"says {name} is {heard[0]:g}, it is {true}"
        elif pattern.search(reference) and not heard:
            yield f"does not give {name}, {true}"
    dates = {str(told.today), *(str(item.date) for item in told.upcoming_workouts)}
    dates |= {str(item.date) for item in told.recent_activities}
    if wrong := set(_DATE.findall(answer)) - dates:
        yield f"names the date {min(wrong)}, which the context does not have"
    if missing := set(_DATE.findall(reference)) - set(_DATE.findall(answer)):
        yield f"does not give the date {min(missing)}"
    limit = told.athlete.thresholds.lthr_bpm
    if any(int(text) != limit for text in _BPM.findall(answer)):
        yield f"names a heart rate that is not the threshold of {limit} bpm"
    elif _BPM.search(reference) and not _BPM.search(answer):
        yield f"does not give the threshold of {limit} bpm"
