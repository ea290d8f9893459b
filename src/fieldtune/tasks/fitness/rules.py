"""Rules between fields, each decided once: sums, dates and weekdays, rest days, and agreement with the athlete's plan.

Each function yields (field, what was given and what is allowed). Shapes and bounds are the schema's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date as Date
from datetime import timedelta

from fieldtune.tasks.fitness.schema import (
    Changes,
    Context,
    Modification,
    NewWorkout,
    PlanModification,
    PlannedWorkout,
    Step,
    WeeklyPlan,
    WeekWorkout,
    day_of,
    form_status,
)

Found = Iterator[tuple[str, str]]

LEAST_MINUTES = 5  # of a workout that is not rest
HIGHEST_RATE = 150.0  # TSS an hour that a body can give; an all-out hour is 100
ROUNDING_MINUTES = 2.0  # a very short session may be rounded up to a TSS of 1
AHEAD_DAYS = 14  # upcoming workouts, today included
TSB_TOLERANCE = 0.11  # three figures rounded to a decimal each
HOURS_TOLERANCE = 0.06  # total_hours is rounded to a decimal


def context(told: Context) -> Found:
    """A context's days, order, form and plan."""
    yield from _day("day", told.day, told.today)
    if told.week_start is not None and told.week_start.weekday() != 0:
        yield "week_start", f"given {told.week_start}, a {day_of(told.week_start)}; allowed: a monday"
    metrics = told.current_metrics
    figures = (metrics.fitness_ctl, metrics.fatigue_atl, metrics.form_tsb)
    if None in figures and any(figure is not None for figure in figures):
        yield "current_metrics", "given some of fitness_ctl, fatigue_atl, form_tsb; allowed: all three or none"
    elif metrics.fitness_ctl is not None and metrics.fatigue_atl is not None and metrics.form_tsb is not None:
        wanted = metrics.fitness_ctl - metrics.fatigue_atl
        if abs(metrics.form_tsb - wanted) > TSB_TOLERANCE:
            yield "current_metrics.form_tsb", f"given {metrics.form_tsb}; allowed: CTL - ATL = {wanted:.1f}"
    status = form_status(metrics.form_tsb)
    if metrics.form_status != status:
        yield "current_metrics.form_status", f"given {metrics.form_status}; allowed at this form: {status}"
    for number, done in enumerate(told.recent_activities):
        if not told.today - timedelta(7) <= done.date < told.today:
            yield f"recent_activities[{number}].date", f"given {done.date}; allowed: the 7 days before {told.today}"
        yield from _work(f"recent_activities[{number}]", done.sport, done.duration_minutes, done.tss, "tss")
    yield from _upcoming(told)


def _upcoming(told: Context) -> Found:
    last = told.today + timedelta(AHEAD_DAYS - 1)
    seen: set[str] = set()
    for number, planned in enumerate(told.upcoming_workouts):
        field = f"upcoming_workouts[{number}]"
        if not told.today <= planned.date <= last:
            yield f"{field}.date", f"given {planned.date}; allowed: {told.today} to {last}"
        yield from _day(f"{field}.day", planned.day, planned.date)
        yield from _work(field, planned.sport, planned.duration_minutes, planned.estimated_tss)
        if (planned.intensity == "rest") != (planned.sport == "rest"):
            yield f"{field}.intensity", f"given {planned.intensity} for sport {planned.sport}; allowed: rest with rest"
        if planned.id in seen:
            yield f"{field}.id", f"given {planned.id!r} again; allowed: an id of its own"
        seen.add(planned.id)


def plan_modification(answer: PlanModification, told: Context | None) -> Found:
    """A change of a plan. told: the context it answers; None: only what the answer says to itself."""
    empty = not answer.modifications and not answer.new_workouts
    if empty != (answer.decision == "no_change"):
        allowed = "change with at least one change, or no_change with both lists empty"
        given = "no changes" if empty else "changes"
        yield "decision", f"given {answer.decision} with {given}; allowed: {allowed}"
    seen: set[str] = set()
    for number, item in enumerate(answer.modifications):
        field = f"modifications[{number}]"
        if item.workout_id in seen:
            yield f"{field}.workout_id", f"given {item.workout_id!r} again; allowed: one change a workout"
        seen.add(item.workout_id)
        yield from _modification(field, item)
        if told is not None:
            yield from _agrees(field, item, told)
    for number, new in enumerate(answer.new_workouts):
        yield from _new(f"new_workouts[{number}]", new, told)
    if answer.analysis is not None and told is not None:
        status = told.current_metrics.form_status
        if answer.analysis.current_status != status:
            yield "analysis.current_status", f"given {answer.analysis.current_status}; allowed: {status}"
    adjustment = answer.weekly_load_adjustment
    if adjustment is not None and empty and adjustment.current_weekly_tss != adjustment.recommended_weekly_tss:
        yield "weekly_load_adjustment.recommended_weekly_tss", "given another load; allowed without changes: the same"


def _modification(field: str, item: Modification) -> Found:
    changes = item.changes
    if item.action == "skip":
        if changes is not None and _named(changes):
            yield f"{field}.changes", "given changes of a workout that is skipped; allowed: none, or notes"
        return
    if changes is None or not _named(changes):
        yield f"{field}.changes", f"given nothing to {item.action}; allowed: at least one change"
        return
    if item.action == "replace":
        lacking = [n for n in ("name", "sport", "duration_minutes", "estimated_tss") if getattr(changes, n) is None]
        if lacking:
            yield f"{field}.changes", f"given no {', '.join(lacking)}; allowed: replace needs all of them"
    elif changes.sport is not None:
        yield f"{field}.changes.sport", f"given {changes.sport}; allowed: only with action replace"
    yield from _ranges(f"{field}.changes", changes)


def _named(changes: Changes) -> set[str]:
    """What a change names, but for its notes."""
    return {name for name in Changes.model_fields if getattr(changes, name) is not None} - {"notes"}


def _ranges(field: str, changes: Changes) -> Found:
    minutes, tss, level = changes.duration_minutes, changes.estimated_tss, changes.intensity
    if changes.sport == "rest" and minutes is not None and tss is not None and (minutes.to or tss.to):
        yield f"{field}.sport", "given rest with duration or TSS; allowed for rest: 0 minutes and TSS 0"
    if changes.sport != "rest" and minutes is not None and minutes.to < LEAST_MINUTES:
        yield (
            f"{field}.duration_minutes.to",
            f"given {minutes.to}; allowed: {LEAST_MINUTES} to 480 (skip, or rest, for 0)",
        )
    same_level = level is None or level.from_ == level.to
    if minutes is not None and tss is not None:
        against = (minutes.to - minutes.from_) * (tss.to - tss.from_) < 0
        if against and same_level and changes.sport is None:
            yield f"{field}.estimated_tss.to", f"given {tss.to}; allowed: TSS goes where the duration goes"
        if minutes.to:
            yield from _rate(f"{field}.estimated_tss.to", minutes.to, tss.to)


def _agrees(field: str, item: Modification, told: Context) -> Found:
    planned = next((workout for workout in told.upcoming_workouts if workout.id == item.workout_id), None)
    if planned is None:
        ids = ", ".join(workout.id for workout in told.upcoming_workouts) or "none"
        yield f"{field}.workout_id", f"given {item.workout_id!r}; allowed: {ids}"
        return
    if item.date != planned.date:
        yield f"{field}.date", f"given {item.date}; allowed: {planned.date}, the date of {planned.id}"
    if item.original_name is not None and item.original_name != planned.name:
        yield f"{field}.original_name", f"given {item.original_name!r}; allowed: {planned.name!r}"
    if item.changes is not None and item.action != "skip":
        yield from _from(f"{field}.changes", item.changes, planned)


def _from(field: str, changes: Changes, planned: PlannedWorkout) -> Found:
    """`from` is what the plan says, and what is left of the workout makes sense."""
    pairs = (
        ("duration_minutes", changes.duration_minutes, planned.duration_minutes),
        ("intensity", changes.intensity, planned.intensity),
        ("estimated_tss", changes.estimated_tss, planned.estimated_tss),
    )
    for name, change, now in pairs:
        if change is not None and change.from_ != now:
            yield f"{field}.{name}.from", f"given {change.from_}; allowed: {now}, as planned"
    minutes = changes.duration_minutes.to if changes.duration_minutes else planned.duration_minutes
    tss = changes.estimated_tss.to if changes.estimated_tss else planned.estimated_tss
    if minutes and (changes.duration_minutes is None) != (changes.estimated_tss is None):
        yield from _rate(f"{field}.estimated_tss", minutes, tss)


def _new(field: str, new: NewWorkout, told: Context | None) -> Found:
    yield from _work(field, new.sport, new.duration_minutes, new.estimated_tss)
    yield from _steps(field, new.steps)
    if told is None:
        return
    last = told.today + timedelta(AHEAD_DAYS - 1)
    if not told.today <= new.date <= last:
        yield f"{field}.date", f"given {new.date}; allowed: {told.today} to {last}"


def weekly_plan(answer: WeeklyPlan, told: Context | None) -> Found:
    """A week's days, sums and key sessions. told: the context it answers, if known."""
    first = answer.workouts[0].date
    start = told.week_start if told is not None and told.week_start is not None else first - timedelta(first.weekday())
    for number, workout in enumerate(answer.workouts):
        field = f"workouts[{number}]"
        yield from _day(f"{field}.day", workout.day, workout.date)
        if not start <= workout.date <= start + timedelta(6):
            yield f"{field}.date", f"given {workout.date}; allowed: {start} to {start + timedelta(6)}"
        yield from _work(field, workout.sport, workout.duration_minutes, workout.estimated_tss)
        yield from _steps(field, workout.steps)
    yield from _rest_alone(answer.workouts)
    summary = answer.plan_summary
    tss = sum(workout.estimated_tss for workout in answer.workouts)
    if summary.total_tss != tss:
        yield "plan_summary.total_tss", f"given {summary.total_tss}; allowed: {tss}, the sum of the workouts"
    hours = sum(workout.duration_minutes for workout in answer.workouts) / 60
    if abs(summary.total_hours - hours) > HOURS_TOLERANCE:
        yield "plan_summary.total_hours", f"given {summary.total_hours}; allowed: {hours:.1f}, the sum of the workouts"
    names = {workout.name for workout in answer.workouts}
    for number, name in enumerate(summary.key_sessions):
        if name not in names:
            yield f"plan_summary.key_sessions[{number}]", f"given {name!r}; allowed: the name of a workout of the plan"


def _rest_alone(workouts: Sequence[WeekWorkout]) -> Found:
    trained = {workout.date for workout in workouts if workout.sport != "rest"}
    for number, workout in enumerate(workouts):
        if workout.sport == "rest" and workout.date in trained:
            yield f"workouts[{number}].sport", f"given rest beside training on {workout.date}; allowed: one of the two"


def _day(field: str, day: str, date: Date) -> Found:
    if day != day_of(date):
        yield field, f"given {day} for {date}; allowed: {day_of(date)}"


def _work(field: str, sport: str, minutes: int, tss: int, name: str = "estimated_tss") -> Found:
    """Rest is 0 minutes and TSS 0, anything else at least 5 minutes and a TSS that the time allows."""
    if sport == "rest":
        if minutes or tss:
            yield f"{field}.duration_minutes", f"given {minutes} minutes, TSS {tss} for rest; allowed: 0 and 0"
    elif minutes < LEAST_MINUTES:
        yield f"{field}.duration_minutes", f"given {minutes}; allowed: {LEAST_MINUTES} to 480, or sport rest with 0"
    else:
        yield from _rate(f"{field}.{name}", minutes, tss)


def _rate(field: str, minutes: int, tss: int) -> Found:
    most = int((minutes + ROUNDING_MINUTES) / 60 * HIGHEST_RATE)
    if not 1 <= tss <= most:
        yield field, f"given {tss} in {minutes} minutes; allowed: 1 to {most} ({HIGHEST_RATE:g} an hour)"


def _steps(field: str, steps: Sequence[Step] | None) -> Found:
    for number, step in enumerate(steps or ()):
        where = f"{field}.steps[{number}]"
        if (step.duration_type == "open") != (step.duration_value is None):
            yield f"{where}.duration_value", "given against duration_type; allowed: a value, or none with open"
        both = step.target_low is not None and step.target_high is not None
        if step.target_type == "open" and (step.target_low is not None or step.target_high is not None):
            yield f"{where}.target_low", "given with target_type open; allowed: none"
        elif step.target_type != "open" and not both:
            yield f"{where}.target_low", "given without its pair; allowed: target_low and target_high"
        elif step.target_low is not None and step.target_high is not None and step.target_low > step.target_high:
            yield f"{where}.target_high", f"given {step.target_high}; allowed: {step.target_low} or more"
