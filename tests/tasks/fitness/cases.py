"""A context, a right plan change and a right weekly plan, written by hand, for tests to break."""

from __future__ import annotations

import copy
from typing import Any

from fieldtune.tasks.fitness.schema import Context
from fieldtune.tasks.fitness.validation import parse_part

CONTEXT: dict[str, Any] = {
    "today": "2026-03-04",
    "day": "wednesday",
    "week_start": "2026-03-09",
    "athlete": {"name": "Mara", "primary_sport": "running", "thresholds": {"lthr_bpm": 168}},
    "current_metrics": {
        "fitness_ctl": 50.0,
        "fatigue_atl": 44.0,
        "form_tsb": 6.0,
        "form_status": "fresh",
        "weekly_tss": 300,
        "history_days": 120,
    },
    "recent_activities": [{"date": "2026-03-03", "sport": "running", "duration_minutes": 50, "tss": 45}],
    "upcoming_workouts": [
        {
            "id": "w1",
            "date": "2026-03-05",
            "day": "thursday",
            "name": "Threshold run",
            "sport": "running",
            "duration_minutes": 60,
            "intensity": "threshold",
            "estimated_tss": 80,
        },
        {
            "id": "w2",
            "date": "2026-03-07",
            "day": "saturday",
            "name": "Long run",
            "sport": "running",
            "duration_minutes": 120,
            "intensity": "easy",
            "estimated_tss": 90,
        },
    ],
}
CHANGE: dict[str, Any] = {
    "analysis": {"current_status": "fresh", "key_concerns": ["tiredness"]},
    "decision": "change",
    "modifications": [
        {
            "workout_id": "w1",
            "date": "2026-03-05",
            "action": "modify",
            "changes": {"duration_minutes": {"from": 60, "to": 45}, "estimated_tss": {"from": 80, "to": 60}},
        }
    ],
    "new_workouts": [],
    "athlete_message": "Threshold run is now 45 minutes.",
}
WEEK: dict[str, Any] = {
    "plan_summary": {"focus": "steady work", "total_tss": 158, "total_hours": 3.0, "key_sessions": ["Long run"]},
    "workouts": [
        {
            "day": "tuesday",
            "date": "2026-03-10",
            "name": "Threshold run",
            "sport": "running",
            "duration_minutes": 50,
            "estimated_tss": 67,
        },
        {
            "day": "thursday",
            "date": "2026-03-12",
            "name": "Rest day",
            "sport": "rest",
            "duration_minutes": 0,
            "estimated_tss": 0,
        },
        {
            "day": "saturday",
            "date": "2026-03-14",
            "name": "Long run",
            "sport": "running",
            "duration_minutes": 130,
            "estimated_tss": 91,
        },
    ],
    "athlete_message": "Two sessions.",
}


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a path as `modifications.0.date`; ... as value takes the key out."""
    whole = copy.deepcopy(base)
    *above, last = path.split(".")
    node: Any = whole
    for key in above:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if value is ...:
        del node[last]
    elif isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return whole


def context(**metrics: Any) -> Context:
    """The context with other metrics; its form and status follow from fitness and fatigue."""
    from fieldtune.tasks.fitness.schema import form_status

    figures = {**CONTEXT["current_metrics"], **metrics}
    ctl, atl = figures["fitness_ctl"], figures["fatigue_atl"]
    figures["form_tsb"] = None if ctl is None or atl is None else round(ctl - atl, 1)
    figures["form_status"] = form_status(figures["form_tsb"])
    told, problems = parse_part(Context, {**CONTEXT, "current_metrics": figures})
    assert told is not None, problems
    return told
