"""The one schema: what a coach is told (`Context`) and what it answers (`PlanModification`, `WeeklyPlan`).

Here stand the shapes and bounds that JSON Schema can say. What two fields say to each other stands in `rules`, what an
answer may do to an athlete in `safety`. The JSON Schema, the prompt's form, the validator and docs/fitness_schema.md
are made of these classes.
"""

from __future__ import annotations

from datetime import date as Date
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["coaching", "plan_modification", "weekly_plan"]
Sport = Literal["running", "cycling", "swimming", "rowing", "strength", "other", "rest"]
Intensity = Literal["rest", "recovery", "easy", "moderate", "threshold", "vo2max"]
Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
FormStatus = Literal["overreached", "very_fatigued", "fatigued", "balanced", "fresh", "detraining", "unknown"]

KINDS: tuple[Kind, ...] = get_args(Kind)
DAYS: tuple[Day, ...] = get_args(Day)
# Form (TSB) below which a status holds, from the most tired; from the last one on it is `detraining`.
FORM_BANDS: tuple[tuple[float, FormStatus], ...] = (
    (-30.0, "overreached"),
    (-20.0, "very_fatigued"),
    (-10.0, "fatigued"),
    (5.0, "balanced"),
    (20.0, "fresh"),
)

Minutes = Annotated[int, Field(ge=0, le=480, description="minutes; 5 to 480, and 0 only for sport rest")]
Tss = Annotated[int, Field(ge=0, le=500, description="training stress score; 0 only for sport rest")]
WeekTss = Annotated[int, Field(ge=0, le=3500, description="training stress score of seven days")]
Name = Annotated[str, Field(min_length=1, max_length=60)]
Note = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(min_length=1, max_length=800)]


class Part(BaseModel):
    """A part of the schema: no other keys, no NaN, no text in place of a number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Thresholds(Part):
    """What an athlete's zones are measured by; each may be unknown."""

    lthr_bpm: int | None = Field(
        default=None, ge=80, le=220, description="heart rate at lactate threshold, beats a minute"
    )
    max_hr_bpm: int | None = Field(default=None, ge=100, le=240, description="highest heart rate, beats a minute")
    resting_hr_bpm: int | None = Field(default=None, ge=25, le=110, description="resting heart rate, beats a minute")
    ftp_watts: int | None = Field(default=None, ge=40, le=600, description="functional threshold power, cycling, watts")
    rftp_watts: int | None = Field(
        default=None, ge=40, le=700, description="functional threshold power, running, watts"
    )
    critical_power_watts: int | None = Field(default=None, ge=40, le=700, description="critical power, watts")


class Athlete(Part):
    """Who trains."""

    name: Name
    primary_sport: Sport
    thresholds: Thresholds


class Metrics(Part):
    """Training load on the morning of `today`: after all sessions before it."""

    fitness_ctl: float | None = Field(
        default=None, ge=0, le=300, description="CTL: 42-day load, TSS a day; null: unknown"
    )
    fatigue_atl: float | None = Field(
        default=None, ge=0, le=500, description="ATL: 7-day load, TSS a day; null: unknown"
    )
    form_tsb: float | None = Field(default=None, ge=-300, le=300, description="TSB = CTL - ATL; null: unknown")
    form_status: FormStatus = Field(description="the band of form_tsb")
    weekly_tss: WeekTss = Field(description="TSS of the last seven days")
    history_days: int = Field(ge=0, le=20000, description="days since the first session on record")


class Activity(Part):
    """A session that was done."""

    date: Date
    sport: Sport
    duration_minutes: Minutes
    tss: Tss


class PlannedWorkout(Part):
    """A session that is planned."""

    id: Annotated[str, Field(min_length=1, max_length=40)]
    date: Date
    day: Day = Field(description="weekday of the date")
    name: Name
    sport: Sport
    duration_minutes: Minutes
    intensity: Intensity
    estimated_tss: Tss


class Context(Part):
    """What the coach is told of an athlete."""

    today: Date
    day: Day = Field(description="weekday of today")
    week_start: Date | None = Field(default=None, description="weekly plan: the Monday of the week to plan")
    athlete: Athlete
    current_metrics: Metrics
    recent_activities: list[Activity] = Field(max_length=60, description="of the last 7 days, oldest first")
    upcoming_workouts: list[PlannedWorkout] = Field(max_length=40, description="of the next 14 days, next one first")


class MinutesChange(Part):
    """A duration before and after."""

    from_: int = Field(alias="from", ge=0, le=480, description="what the plan says now")
    to: int = Field(ge=0, le=480, description="what it shall be")


class TssChange(Part):
    """A training stress score before and after."""

    from_: int = Field(alias="from", ge=0, le=500, description="what the plan says now")
    to: int = Field(ge=0, le=500, description="what it shall be")


class IntensityChange(Part):
    """An intensity before and after."""

    from_: Intensity = Field(alias="from", description="what the plan says now")
    to: Intensity = Field(description="what it shall be")


class Changes(Part):
    """What changes in a workout; what is not named stays."""

    name: Name | None = None
    sport: Sport | None = Field(default=None, description="only with action replace")
    duration_minutes: MinutesChange | None = Field(default=None, description="minutes")
    intensity: IntensityChange | None = None
    estimated_tss: TssChange | None = Field(default=None, description="training stress score")
    notes: Note | None = None


class Modification(Part):
    """A change to one planned workout."""

    workout_id: Annotated[str, Field(min_length=1, max_length=40)] = Field(description="id of an upcoming workout")
    date: Date = Field(description="the date of that workout")
    original_name: Name | None = Field(default=None, description="the name of that workout")
    action: Literal["modify", "skip", "replace"]
    changes: Changes | None = Field(default=None, description="needed by modify and replace; skip: notes at most")


class Step(Part):
    """A piece of a workout."""

    step_type: Literal["warmup", "active", "recovery", "cooldown", "rest"]
    duration_type: Literal["time", "distance", "calories", "open"]
    duration_value: float | None = Field(default=None, gt=0, le=200000, description="seconds, meters or kilocalories")
    target_type: Literal["heart_rate", "power", "pace", "cadence", "open"]
    target_low: float | None = Field(default=None, ge=0, le=2000, description="beats a minute, watts, s/km or 1/min")
    target_high: float | None = Field(default=None, ge=0, le=2000, description="as target_low; not below it")
    notes: Note | None = None


class NewWorkout(Part):
    """A workout that joins the plan."""

    date: Date
    name: Name
    sport: Sport
    duration_minutes: Minutes
    estimated_tss: Tss
    intensity: Intensity | None = None
    description: Note | None = None
    steps: list[Step] | None = Field(default=None, max_length=40)


class Analysis(Part):
    """What the coach saw."""

    current_status: FormStatus
    key_concerns: list[Name] = Field(max_length=6)
    recommendations_summary: Note | None = None


class LoadAdjustment(Part):
    """What the week comes to."""

    current_weekly_tss: WeekTss
    recommended_weekly_tss: WeekTss
    reason: Note


class PlanModification(Part):
    """The answer to USER FEEDBACK."""

    analysis: Analysis | None = None
    decision: Literal["change", "no_change"] = Field(description="no_change: both lists are empty")
    modifications: list[Modification] = Field(max_length=14)
    new_workouts: list[NewWorkout] = Field(max_length=7)
    weekly_load_adjustment: LoadAdjustment | None = None
    athlete_message: Text


class WeekWorkout(Part):
    """A workout of a weekly plan; a day without one is a day of rest."""

    day: Day = Field(description="weekday of the date")
    date: Date
    name: Name
    sport: Sport
    duration_minutes: Minutes
    estimated_tss: Tss
    intensity: Intensity | None = None
    description: Note | None = None
    steps: list[Step] | None = Field(default=None, max_length=40)


class PlanSummary(Part):
    """What the week is about and comes to."""

    focus: Name
    total_tss: WeekTss = Field(description="sum of the workouts' estimated_tss")
    total_hours: float = Field(ge=0, le=60, description="sum of the workouts' hours, to one decimal")
    key_sessions: list[Name] = Field(max_length=4, description="names of workouts of the plan")


class WeeklyPlan(Part):
    """The answer to TRAINING GOALS and CONSTRAINTS."""

    plan_summary: PlanSummary
    workouts: list[WeekWorkout] = Field(min_length=1, max_length=21)
    athlete_message: Text


ANSWERS: dict[str, type[Part]] = {"plan_modification": PlanModification, "weekly_plan": WeeklyPlan}


def form_status(tsb: float | None) -> FormStatus:
    """The band of a form; `unknown` of None."""
    if tsb is None:
        return "unknown"
    return next((name for limit, name in FORM_BANDS if tsb < limit), "detraining")


def day_of(date: Date) -> Day:
    """The weekday of a date."""
    return DAYS[date.weekday()]


def json_schema(part: type[Part]) -> dict[str, Any]:
    """JSON Schema of a part with every `$ref` replaced by what it refers to: for constrained decoding and Ollama."""
    whole = part.model_json_schema(by_alias=True)
    definitions = whole.pop("$defs", {})
    inlined = _inlined(whole, definitions)
    assert isinstance(inlined, dict)
    return inlined


@cache
def answer_schemas() -> dict[str, dict[str, Any]]:
    """`json_schema` of each kind of answer that is JSON. Shared: do not change it."""
    return {kind: json_schema(part) for kind, part in ANSWERS.items()}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        node = {**definitions[node["$ref"].rpartition("/")[2]], **rest}
    found = {key: _inlined(value, definitions) for key, value in node.items()}
    if isinstance(found.get("title"), str):  # pydantic's names of fields; a property called title is a mapping
        del found["title"]
    return found
