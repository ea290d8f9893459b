"""Schema and cross-field rules: every slip is refused at its field, with what was given and what is allowed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from fieldtune.sources.json_text import NotJson, line_of, strict_json, value_lines
from fieldtune.tasks.fitness.schema import ANSWERS, Context, PlanModification, WeeklyPlan, form_status, json_schema
from fieldtune.tasks.fitness.validation import Problem, check_answer, check_context, parse_part, read_answer
from tests.tasks.fitness.cases import CHANGE, CONTEXT, WEEK, changed, context

M = "modifications.0."
REST = {"sport": "rest", "name": "Rest day"}


def test_the_cases_are_right() -> None:
    assert check_context(CONTEXT) == []
    assert check_answer("plan_modification", CHANGE, context()) == []
    assert check_answer("weekly_plan", WEEK, context()) == []


@pytest.mark.parametrize(
    ("path", "value", "layer", "field", "text"),
    [
        ("decision", "maybe", "schema", "decision", "allowed: 'change' or 'no_change'"),
        ("extra", 1, "schema", "extra", "allowed: no key of this name"),
        ("athlete_message", "", "schema", "athlete_message", "at least 1"),
        ("athlete_message", ..., "schema", "athlete_message", "given nothing"),
        (M + "date", "05.03.2026", "schema", "modifications[0].date", "a date as 2026-03-04"),
        (M + "changes.duration_minutes.to", "45", "schema", "modifications[0].changes.duration_minutes.to", "whole"),
        (
            M + "changes.duration_minutes.to",
            481,
            "schema",
            "modifications[0].changes.duration_minutes.to",
            "480 or less",
        ),
        (M + "changes.duration_minutes.to", True, "schema", "modifications[0].changes.duration_minutes.to", "whole"),
        ("decision", "no_change", "rules", "decision", "given no_change with changes"),
        ("modifications", [], "rules", "decision", "given change with no changes"),
        (M + "workout_id", "w9", "rules", "modifications[0].workout_id", "allowed: w1, w2"),
        (M + "date", "2026-03-06", "rules", "modifications[0].date", "allowed: 2026-03-05"),
        (M + "original_name", "Tempo", "rules", "modifications[0].original_name", "'Threshold run'"),
        (M + "action", "skip", "rules", "modifications[0].changes", "allowed: none, or notes"),
        (M + "changes", ..., "rules", "modifications[0].changes", "at least one change"),
        (M + "action", "replace", "rules", "modifications[0].changes", "given no name, sport"),
        (M + "changes.sport", "cycling", "rules", "modifications[0].changes.sport", "only with action replace"),
        (M + "changes.duration_minutes.from", 50, "rules", "modifications[0].changes.duration_minutes.from", "60, as"),
        (
            M + "changes.estimated_tss.to",
            90,
            "rules",
            "modifications[0].changes.estimated_tss.to",
            "where the duration",
        ),
        (M + "changes.duration_minutes.to", 4, "rules", "modifications[0].changes.duration_minutes.to", "5 to 480"),
        ("analysis.current_status", "fatigued", "rules", "analysis.current_status", "allowed: fresh"),
    ],
)
def test_a_broken_plan_change_is_refused(path: str, value: Any, layer: str, field: str, text: str) -> None:
    problems = check_answer("plan_modification", changed(CHANGE, path, value), context())
    assert any(found.layer == layer and found.field == field and text in found.text for found in problems), problems


@pytest.mark.parametrize(
    ("path", "value", "field", "text"),
    [
        ("plan_summary.total_tss", 150, "plan_summary.total_tss", "allowed: 158, the sum"),
        ("plan_summary.total_hours", 3.2, "plan_summary.total_hours", "allowed: 3.0"),
        ("plan_summary.key_sessions", ["Sprint"], "plan_summary.key_sessions[0]", "name of a workout"),
        ("workouts.0.day", "monday", "workouts[0].day", "allowed: tuesday"),
        ("workouts.2.date", "2026-03-21", "workouts[2].date", "allowed: 2026-03-09 to 2026-03-15"),
        ("workouts.1.estimated_tss", 10, "workouts[1].duration_minutes", "allowed: 0 and 0"),
        ("workouts.0.duration_minutes", 0, "workouts[0].duration_minutes", "5 to 480, or sport rest"),
        ("workouts.0.estimated_tss", 400, "workouts[0].estimated_tss", "(150 an hour)"),
        ("workouts.1.date", "2026-03-14", "workouts[1].sport", "given rest beside training"),
    ],
)
def test_a_broken_week_is_refused(path: str, value: Any, field: str, text: str) -> None:
    problems = check_answer("weekly_plan", changed(WEEK, path, value), context())
    assert any(found.field == field and text in found.text for found in problems), problems


def test_steps_are_checked() -> None:
    step = {"step_type": "active", "duration_type": "time", "duration_value": 600, "target_type": "power"}
    wrong = [{**step, "target_low": 200}, {**step, "target_type": "open", "duration_type": "open"}]
    problems = check_answer("weekly_plan", changed(WEEK, "workouts.0.steps", wrong), context())
    assert {found.field for found in problems} == {
        "workouts[0].steps[0].target_low",
        "workouts[0].steps[1].duration_value",
    }


def test_no_change_is_said_and_is_the_only_empty_form() -> None:
    nothing = {"decision": "no_change", "modifications": [], "new_workouts": [], "athlete_message": "Stay with it."}
    assert check_answer("plan_modification", nothing, context()) == []
    assert check_answer("plan_modification", {**nothing, "decision": "change"}, context())


def test_rest_takes_the_place_of_a_workout_with_nothing() -> None:
    swap = {"duration_minutes": {"from": 60, "to": 0}, "estimated_tss": {"from": 80, "to": 0}, **REST}
    answer = changed(changed(CHANGE, M + "action", "replace"), M + "changes", swap)
    assert check_answer("plan_modification", answer, context()) == []


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("day", "monday", "day"),
        ("week_start", "2026-03-10", "week_start"),
        ("current_metrics.form_tsb", 9.0, "current_metrics.form_tsb"),
        ("current_metrics.form_status", "balanced", "current_metrics.form_status"),
        ("current_metrics.fitness_ctl", None, "current_metrics"),
        ("recent_activities.0.date", "2026-03-04", "recent_activities[0].date"),
        ("upcoming_workouts.1.id", "w1", "upcoming_workouts[1].id"),
        ("upcoming_workouts.1.date", "2026-03-20", "upcoming_workouts[1].date"),
        ("upcoming_workouts.0.intensity", "rest", "upcoming_workouts[0].intensity"),
    ],
)
def test_a_broken_context_is_refused(path: str, value: Any, field: str) -> None:
    assert field in {found.field for found in check_context(changed(CONTEXT, path, value))}


def test_form_bands() -> None:
    bands = {-30.1: "overreached", -30.0: "very_fatigued", -24.0: "very_fatigued", -15.8: "fatigued", -10.0: "balanced"}
    bands |= {5.0: "fresh", 19.9: "fresh", 20.0: "detraining"}
    assert {tsb: form_status(tsb) for tsb in bands} == bands
    assert form_status(None) == "unknown"


@pytest.mark.parametrize("part", [Context, PlanModification, WeeklyPlan])
def test_the_json_schema_has_no_references_and_is_closed(part: type[Any]) -> None:
    text = json.dumps(json_schema(part))
    assert "$ref" not in text and "$defs" not in text
    assert text.count('"properties"') == text.count('"additionalProperties": false')
    assert '"from"' in text or part is not PlanModification


def test_an_answer_is_found_in_its_wrapping() -> None:
    text = json.dumps(CHANGE)
    assert read_answer(text) == (CHANGE, ())
    assert read_answer(f"Sure!\n```json\n{text}\n```\nBye") == (CHANGE, ("a code fence",))
    assert read_answer(f"Here it is: {text}") == (CHANGE, ("words around it",))
    assert read_answer('{"a": [1, 2,], "b": "x,]",}') == ({"a": [1, 2], "b": "x,]"}, ("a trailing comma",))


BROKEN = (
    "",
    "[]]",
    '{"a": NaN}',
    '{"a": 1, "a": 2}',
    '{"a": 1e999}',
    '{"a": ' + "9" * 5000 + "}",
    '{"a": ' * 3000,
    '{"a": "\\ud800"}',
    "{" + " " * 200_000 + "}",
)


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_not_json_gets_a_reason(text: str) -> None:
    with pytest.raises(NotJson) as caught:
        read_answer(text)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_two_thousand_spoiled_answers_are_refused_or_right() -> None:
    """Cut, overwritten and retyped answers: none crashes the validator, none that is wrong passes."""
    rng, told, whole = random.Random(1), context(), json.dumps(CHANGE)
    strange = [None, -1, 10**30, 1.5, True, "", "w9", [], {}, "2026-13-01", [[]], {"to": 1}]
    refused = 0
    for _ in range(2000):
        if rng.random() < 0.5:
            place = rng.randrange(len(whole))
            text = whole[:place] + rng.choice(["", "}", '"', "NaN", ",", "\x00", "{", "9" * 40]) + whole[place + 1 :]
        else:
            text = json.dumps(changed(CHANGE, rng.choice(PATHS), rng.choice(strange)))
        try:
            value, _ = read_answer(text)
            problems = check_answer("plan_modification", value, told)
        except NotJson as error:
            problems = [Problem("json", "", str(error))]
        refused += bool(problems)
        assert all(found.text for found in problems)
        if not problems:
            item = next(iter(parse_part(ANSWERS["plan_modification"], value)[0].modifications))  # type: ignore[union-attr]
            assert (item.workout_id, str(item.date)) == ("w1", "2026-03-05")
    assert refused > 1500


PATHS = [
    "decision",
    "modifications",
    "new_workouts",
    "modifications.0",
    *(M + key for key in ("workout_id", "date", "action", "changes", "changes.duration_minutes")),
    M + "changes.estimated_tss.to",
]


def test_the_line_of_a_value_is_known() -> None:
    text = json.dumps({"a": 1, "rows": [{"x": "}\n"}, {"y": [1, {"z": None}]}], "e": []}, indent=1)
    lines = value_lines(text)
    where = {
        path: next(n for n, line in enumerate(text.split("\n"), 1) if mark in line) for path, mark in MARKS.items()
    }
    assert {path: lines[path] for path in MARKS} == where
    assert line_of(lines, "rows[1].y[1].z.deeper") == lines["rows[1].y[1].z"]
    assert strict_json(text)["rows"][1]["y"] == [1, {"z": None}]


MARKS = {"a": '"a"', "rows[0].x": '"x"', "rows[1].y": '"y"', "rows[1].y[1].z": '"z"', "e": '"e"'}
