"""Each safety rule refuses an answer that was broken on purpose, and lets a right one pass. No coach is imported."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest

from fieldtune.tasks.fitness import rules, safety, validation
from fieldtune.tasks.fitness.schema import ANSWERS, Context
from fieldtune.tasks.fitness.validation import parse_part
from tests.tasks.fitness.cases import CHANGE, CONTEXT, WEEK, changed, context

M = "modifications.0."
CALM = "All well."
TIRED: dict[str, Any] = {"fitness_ctl": 50.0, "fatigue_atl": 75.0}
NOTHING = {"decision": "no_change", "modifications": [], "new_workouts": [], "athlete_message": "Stay with it."}
SKIP = changed(changed(CHANGE, M + "action", "skip"), M + "changes", ...)
EXTRA = {
    "date": "2026-03-08",
    "name": "Easy run",
    "sport": "running",
    "duration_minutes": 30,
    "estimated_tss": 22,
    "intensity": "easy",
}

HARD_WEEK = changed(changed(WEEK, "workouts.0.date", "2026-03-13"), "workouts.2.estimated_tss", 180)
SEVEN_DAYS = {**WEEK, "workouts": [{**WEEK["workouts"][2], "date": f"2026-03-{day:02d}"} for day in range(9, 16)]}


def resized(minutes: int, tss: int) -> dict[str, Any]:
    return changed(changed(CHANGE, M + "changes.duration_minutes.to", minutes), M + "changes.estimated_tss.to", tss)


def with_new(**more: Any) -> dict[str, Any]:
    return {**NOTHING, "decision": "change", "new_workouts": [{**EXTRA, **more}]}


def broken_rules(answer: dict[str, Any], told: Context, words: str) -> set[str]:
    kind = "weekly_plan" if "workouts" in answer else "plan_modification"
    parsed, problems = parse_part(ANSWERS[kind], answer)
    assert parsed is not None, problems
    return {found.text.partition(":")[0] for found in safety.check(parsed, told, words)}


@pytest.mark.parametrize(
    ("rule", "answer", "metrics", "words"),
    [
        ("load_ramp", with_new(duration_minutes=400, estimated_tss=300), {}, CALM),
        ("single_raise", resized(90, 120), {}, CALM),
        ("single_raise", with_new(duration_minutes=300, estimated_tss=210), {}, CALM),
        ("rest_first", NOTHING, TIRED, CALM),
        ("rest_first", resized(65, 85), TIRED, CALM),
        ("rest_first", with_new(), TIRED, CALM),
        ("hard_days", with_new(date="2026-03-06", intensity="vo2max", estimated_tss=45), {}, CALM),
        ("hurt", NOTHING, {}, "My knee hurts."),
        ("hurt", CHANGE, {}, "I have a fever."),
        ("hurt", with_new(), {}, "I injured my calf."),
        ("warning_signs", NOTHING, {}, "I had chest pain yesterday."),
        ("warning_signs", SKIP, {}, "I nearly fainted."),  # taken out, but no word of a doctor
        ("unknown", with_new(), {"fitness_ctl": None, "fatigue_atl": None, "history_days": 9}, CALM),
        ("unknown", resized(70, 90), {"history_days": 9}, CALM),
        ("words", {**NOTHING, "athlete_message": "Push on through the pain."}, {}, CALM),
        ("words", {**NOTHING, "athlete_message": "Take two ibuprofen before the start."}, {}, CALM),
        ("week_load", changed(WEEK, "workouts.2.estimated_tss", 400), {}, CALM),
        ("week_load", changed(WEEK, "workouts.2.estimated_tss", 230), TIRED, CALM),
        ("unknown", changed(WEEK, "workouts.2.estimated_tss", 180), {"fitness_ctl": None, "fatigue_atl": None}, CALM),
        ("hard_days", HARD_WEEK, {}, CALM),
        ("rest_day", SEVEN_DAYS, {}, CALM),
        ("hurt", WEEK, {}, "No running, my shin hurts."),
    ],
)  # fmt: skip
def test_a_broken_answer_is_refused(rule: str, answer: dict[str, Any], metrics: dict[str, Any], words: str) -> None:
    assert rule in broken_rules(answer, context(**metrics), words)


@pytest.mark.parametrize(
    ("answer", "metrics", "words"),
    [
        (NOTHING, {}, CALM),
        (CHANGE, {}, "I am tired."),
        (resized(70, 90), {}, "I feel great."),
        (with_new(), {}, CALM),
        (SKIP, TIRED, CALM),
        (SKIP, {}, "My knee hurts."),
        ({**SKIP, "athlete_message": "Please see a doctor first."}, {}, "I had chest pain."),
        (NOTHING, {}, "My knee is fine again, no pain at all."),
        (NOTHING, {}, "Long week, no fever, not sick."),
        ({**NOTHING, "athlete_message": "Do not push through the pain."}, {}, CALM),
        (WEEK, {}, CALM),
    ],
)
def test_a_right_answer_passes(answer: dict[str, Any], metrics: dict[str, Any], words: str) -> None:
    assert broken_rules(answer, context(**metrics), words) == set()


def test_an_easy_other_sport_spares_what_hurts() -> None:
    swap = {
        "name": "Easy swim",
        "sport": "swimming",
        "duration_minutes": {"from": 60, "to": 30},
        "intensity": {"from": "threshold", "to": "easy"},
        "estimated_tss": {"from": 80, "to": 20},
    }
    answer = changed(changed(CHANGE, M + "action", "replace"), M + "changes", swap)
    assert broken_rules(answer, context(), "My knee hurts.") == set()
    hard = changed(answer, M + "changes.intensity.to", "vo2max")
    assert broken_rules(hard, context(), "My knee hurts.") == {"hurt"}


def test_a_text_names_a_doctor_where_one_is_needed() -> None:
    assert safety.check_text("Just rest a day.", "I fainted in training.")
    assert not safety.check_text("Stop and see a doctor.", "I fainted in training.")
    assert safety.check_text("You should train through the injury.", CALM)


def test_every_rule_of_the_page_is_tried() -> None:
    named = {line.split()[0] for line in safety.__doc__.partition("name:\n")[2].split("\n") if line.strip()}  # type: ignore[union-attr]
    source = inspect.getsource(test_a_broken_answer_is_refused) + inspect.getsource(inspect.getmodule(broken_rules))  # type: ignore[arg-type]
    assert named and all(f'("{rule}", ' in source for rule in named)


def test_the_rules_know_nothing_of_the_generator() -> None:
    for module in (safety, rules, validation):
        tree = ast.parse(inspect.getsource(module))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        ours = {name.rpartition(".")[2] for name in names if name.startswith("fieldtune.tasks")}
        assert ours <= {"schema", "rules", "validation", "fitness"}, module.__name__


def test_the_context_is_right() -> None:
    assert parse_part(Context, CONTEXT)[0] == context()
