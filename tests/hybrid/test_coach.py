"""Requests from end to end with a scripted model: applied in one transaction, refused with reasons, undone, audited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.records import Message
from fieldtune.store.database import Database
from fieldtune.store.fitness import Change, NotThere, Workout, reading, writing
from fieldtune.tasks.fitness.hybrid.coach import CONFLICT, HybridCoach, undo
from fieldtune.tasks.fitness.schema import ANSWERS
from fieldtune.tasks.fitness.validation import check_answer, parse_part
from tests.hybrid.athletes import (
    MESSAGE,
    MONDAY,
    RIGHT_WEEK,
    TODAY,
    Scripted,
    add,
    coach,
    history,
    plan_of,
    shorter,
    skip,
    week,
)

WISH = "I have only 45 minutes tomorrow."


def audit(database: Database, number: int) -> list[Change]:
    with reading(database) as book:
        return book.changes(number)


def version(database: Database, number: int) -> int:
    with reading(database) as book:
        return book.athlete(number).version


def test_a_change_is_applied_and_audited(database: Database) -> None:
    number, other = add(database), add(database)
    before, untouched = plan_of(database, number), plan_of(database, other)
    found = coach(database, shorter()).modify(number, WISH, today=TODAY)
    assert found.change.verdict == "applied" and json.loads(found.answer)["athlete_message"] == MESSAGE
    after = plan_of(database, number)
    assert after == [replace(before[0], minutes=45, tss=60), *before[1:]] and plan_of(database, other) == untouched
    (row,) = audit(database, number)
    assert (row.verdict, row.kind, row.model, row.today) == ("applied", "plan_modification", "scripted", TODAY)
    assert row.request == {"feedback": WISH, "dry_run": False} and row.answers == [json.dumps(shorter())]
    assert (row.before, row.after, row.reasons) == (before, after, [])
    assert version(database, number) == 2 and version(database, other) == 1


def test_skip_replace_and_add(database: Database) -> None:
    number = add(database)
    before = plan_of(database, number)
    coach(database, skip("w1")).modify(number, "No time tomorrow.", today=TODAY)
    assert plan_of(database, number) == before[1:]
    changes = {
        "name": "Technique swim",
        "sport": "swimming",
        "duration_minutes": {"from": 120, "to": 30},
        "estimated_tss": {"from": 90, "to": 15},
        "notes": "easy",
    }
    item = {"workout_id": "w1", "date": "2026-03-07", "action": "replace", "changes": changes}
    coach(database, {**skip(), "modifications": [item]}).modify(number, "My knee hurts.", today=TODAY)
    assert plan_of(database, number)[0] == Workout(
        before[1].id, before[1].date, "Technique swim", "swimming", 30, "recovery", 15, None, "easy"
    )
    new = {"date": "2026-03-06", "name": "Easy run", "sport": "running", "duration_minutes": 30, "estimated_tss": 22}
    step = {"step_type": "active", "duration_type": "open", "target_type": "open"}
    new |= {"description": "An easy one", "steps": [step]}
    answer = {"decision": "change", "modifications": [], "new_workouts": [new], "athlete_message": "Added."}
    found = coach(database, answer).modify(number, "One more, please.", today=TODAY)
    assert found.change.verdict == "applied", found.change.reasons
    added = plan_of(database, number)[0]
    assert (added.name, added.intensity, added.description, added.steps) == ("Easy run", "easy", "An easy one", [step])
    assert added.id not in {item.id for item in before}


def test_a_dry_run_shows_and_writes_nothing(database: Database) -> None:
    number = add(database)
    before = plan_of(database, number)
    found = coach(database, shorter()).modify(number, WISH, today=TODAY, dry_run=True)
    assert found.change.verdict == "dry_run" and found.change.after[0].minutes == 45
    assert plan_of(database, number) == before and version(database, number) == 1
    assert undo(database, found.change.id).change.reasons == [
        f"change {found.change.id} left the plan as it was (dry_run); there is nothing to undo"
    ]
    assert [row.verdict for row in audit(database, number)] == ["refused", "dry_run"]


def test_a_week_takes_the_place_of_what_was_planned(database: Database) -> None:
    number = add(database)
    before = plan_of(database, number)
    with_rest = week((0, "Easy run", 40, 30), (2, "Long run", 100, 75))
    rest = {"day": "tuesday", "date": "2026-03-10", "name": "Rest day", "sport": "rest"}
    with_rest["workouts"].insert(1, {**rest, "duration_minutes": 0, "estimated_tss": 0})
    found = coach(database, with_rest).plan_week(number, "Get fit.", "Monday and Wednesday.", today=TODAY)
    assert found.change.verdict == "applied", found.change.reasons
    after = plan_of(database, number)
    assert after[:2] == before[:2]  # this week stays
    assert [(item.date - MONDAY).days for item in after[2:]] == [0, 1, 2]
    assert [item.intensity for item in after[2:]] == ["easy", "rest", "easy"]
    assert undo(database, found.change.id).change.verdict == "applied" and plan_of(database, number) == before


def test_a_week_beside_a_hard_day_is_refused(memory: Database) -> None:
    number = add(memory)
    with writing(memory) as book:
        before = book.workouts(number)
        hard = replace(before[1], date=MONDAY - timedelta(1), intensity="vo2max")
        book.put_plan(book.athlete(number, lock=True), before, [before[0], hard, *before[2:]])
    answer = week((0, "Threshold run", 40, 60), (5, "Long run", 100, 75))
    found = coach(memory, answer, answer).plan_week(number, "Get fit.", today=TODAY)
    assert found.change.verdict == "refused" and "hard_days" in found.change.reasons[0]


def test_nothing_to_change(database: Database) -> None:
    number = add(database)
    nothing = {"decision": "no_change", "modifications": [], "new_workouts": [], "athlete_message": "Train on."}
    found = coach(database, nothing).modify(number, "All well.", today=TODAY)
    assert found.change.verdict == "no_change" and version(database, number) == 1


def test_a_wrong_answer_is_given_back_once(database: Database) -> None:
    number = add(database)
    model = Scripted(shorter(to=500), shorter())
    found = HybridCoach(database, model).modify(number, WISH, today=TODAY)
    assert found.change.verdict == "applied" and len(found.change.answers) == 2
    assert [turn.role for turn in model.asked[1]] == ["system", "user", "assistant", "user"]
    assert model.asked[1][:2] == model.asked[0] and model.asked[1][2].text == found.change.answers[0]
    reason = "modifications[0].changes.duration_minutes.to: given 500; allowed: 480 or less"
    assert reason in model.asked[1][3].text and found.change.reasons == [f"answer 1: schema: {reason}"]


@pytest.mark.parametrize(
    ("words", "days", "says"),
    [
        ("I fainted yesterday.", {}, "see a doctor"),
        ("My knee hurts.", {}, "until you are well"),
        ("All well.", {"tss": 150.0}, "very tired"),
        ("All well.", {}, "in other words"),
    ],
)
def test_two_wrong_answers_end_with_the_safe_fallback(
    memory: Database, words: str, days: dict[str, Any], says: str
) -> None:
    number = add(memory, **days)
    before = plan_of(memory, number)
    found = coach(memory, "I cannot say.", shorter(to=70, tss=120)).modify(number, words, today=TODAY)
    assert found.change.verdict == "refused" and plan_of(memory, number) == before
    assert found.change.reasons[0].startswith("answer 1: json: no JSON object")
    assert found.change.reasons[1].startswith("answer 2: ")
    fallback = json.loads(found.answer)
    assert says in fallback["athlete_message"] and "your plan stays as it is" in fallback["athlete_message"]
    assert parse_part(ANSWERS["plan_modification"], fallback)[0] and not check_answer("plan_modification", fallback)


@pytest.mark.parametrize(
    ("answer", "words", "reason"),
    [
        (shorter(), "I had chest pain.", "warning_signs"),
        (shorter(to=90, tss=120), WISH, "single_raise"),
        (skip("w4", "2026-03-12"), WISH, "given 'w4'; allowed: w1, w2, w3"),  # it was not told of this one
        (skip("w1", "2026-03-06"), WISH, "allowed: 2026-03-05, the date of w1"),
        ({**skip(), "athlete_message": "Rest\x1b[2J"}, WISH, "the character U+001B; allowed: printable text"),
        ({**skip(), "athlete_message": "a\u202eb"}, WISH, "the character U+202E"),
        ({**skip(), "athlete_message": "Take ibuprofen and see a doctor."}, WISH, "words: given"),
    ],
)
def test_what_is_refused(memory: Database, answer: dict[str, Any], words: str, reason: str) -> None:
    number = add(memory)
    before = plan_of(memory, number)
    found = coach(memory, answer, answer).modify(number, words, today=TODAY)
    assert found.change.verdict == "refused" and reason in "\n".join(found.change.reasons)
    assert plan_of(memory, number) == before


def test_an_answer_that_leads_to_no_plan_is_refused(memory: Database) -> None:
    """Each part of the answer is right by itself."""
    number = add(memory)
    with writing(memory) as book:
        before = book.workouts(number)
        rest = Workout(0, TODAY + timedelta(2), "Rest", "rest", 0, "rest", 0)
        book.put_plan(book.athlete(number, lock=True), before, [*before, rest])
    changes = {"intensity": {"from": "threshold", "to": "rest"}}
    item = {"workout_id": "w1", "date": "2026-03-05", "action": "modify", "changes": changes}
    answer = {**skip(), "modifications": [item]}
    found = coach(memory, answer, answer).modify(number, WISH, today=TODAY)
    assert "given intensity rest for sport running on 2026-03-05" in found.change.reasons[0]
    assert found.change.verdict == "refused"


def test_a_load_beyond_what_was_told_counts(memory: Database) -> None:
    """The coach is told of three workouts; the ramp is that of all."""
    number = add(memory)
    ride = {"name": "Ride", "sport": "cycling", "duration_minutes": 120, "estimated_tss": 100}
    new = [{**ride, "date": f"2026-03-{day}"} for day in (11, 13)]
    answer = {**skip(), "modifications": [], "new_workouts": new}
    found = coach(memory, answer, answer).modify(number, WISH, today=TODAY)
    assert "load_ramp: given TSS 408 in the week from 2026-03-07" in found.change.reasons[0]


def test_undo_and_undo_of_it(database: Database) -> None:
    number = add(database)
    start = plan_of(database, number)
    first = coach(database, skip()).modify(number, WISH, today=TODAY).change
    second = coach(database, skip("w1", "2026-03-07")).modify(number, WISH, today=TODAY).change
    refused = undo(database, first.id).change
    assert refused.verdict == "refused" and refused.undoes == first.id
    reason = f"change {first.id}, by change {second.id} (plan_modification); undo the newest first"
    assert refused.reasons == [f"the plan was changed since {reason}"]
    back = undo(database, second.id).change
    assert plan_of(database, number) == start[1:] and back.undoes == second.id
    undo(database, first.id)
    assert plan_of(database, number) == start
    assert "there is nothing to undo" not in undo(database, first.id).change.reasons[0]
    last = audit(database, number)[1]
    assert undo(database, last.id).change.verdict == "applied" and plan_of(database, number) == start[1:]
    assert [row.verdict for row in audit(database, number)].count("applied") == 5
    with pytest.raises(NotThere, match="there is no change 999"):
        undo(database, 999)


def test_undo_of_a_plan_that_somebody_else_changed(database: Database) -> None:
    number = add(database)
    found = coach(database, skip()).modify(number, WISH, today=TODAY).change
    with writing(database) as book:
        now = book.workouts(number)
        book.put_plan(book.athlete(number, lock=True), now, now[:-1])
    assert undo(database, found.id).change.reasons == [
        f"the plan was changed since change {found.id}, not by a request"
    ]


@pytest.mark.parametrize("what", ["plan", "log"])
def test_a_plan_or_a_log_that_changed_meanwhile_is_a_conflict(database: Database, what: str) -> None:
    number = add(database)

    def meanwhile(turns: Sequence[Message], kind: str) -> str:
        with writing(database) as book:
            athlete, now = book.athlete(number, lock=True), book.workouts(number)
            if what == "plan":
                book.put_plan(athlete, now, [replace(now[0], minutes=50, tss=70), *now[1:]])
            else:
                book.add_sessions(number, [replace(book.sessions(number)[-1], tss=200.0)])
        return json.dumps(shorter())

    found = HybridCoach(database, meanwhile).modify(number, WISH, today=TODAY)
    assert found.change.verdict == "conflict" and found.change.reasons == [CONFLICT]
    assert plan_of(database, number)[0].minutes == (50 if what == "plan" else 60)


def test_a_model_that_fails_is_audited(database: Database) -> None:
    number = add(database)

    def fails(turns: Sequence[Message], kind: str) -> str:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        HybridCoach(database, fails).modify(number, WISH, today=TODAY)
    (row,) = audit(database, number)
    assert (row.verdict, row.reasons) == ("failed", ["RuntimeError: no memory"])


def test_a_retry_that_cannot_be_asked_ends_with_the_first_answer(memory: Database) -> None:
    number = add(memory)

    def full(turns: Sequence[Message], kind: str) -> str:
        if len(turns) > 2:
            raise UserError("a prompt has 9,000 tokens")
        return "no"

    found = HybridCoach(memory, full).modify(number, WISH, today=TODAY)
    assert found.change.verdict == "refused" and len(found.change.answers) == 1
    assert found.change.reasons[1] == "it could not be asked again: a prompt has 9,000 tokens"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "feedback is empty"),
        ("  \n", "feedback is empty"),
        ("x" * 2001, "feedback has 2,001 characters; allowed: 2,000"),
        ("a\x00b", r"feedback holds the character U\+0000"),
        ("a\ud800b", r"feedback holds the character U\+D800"),
    ],
)
def test_bad_requests(memory: Database, words: str, said: str) -> None:
    number = add(memory)
    with pytest.raises(UserError, match=said):
        coach(memory).modify(number, words, today=TODAY)
    with pytest.raises(NotThere, match=f"there is no athlete {number + 1}"):
        coach(memory).modify(number + 1, "Hi", today=TODAY)
    assert audit(memory, number) == []


def test_the_athletes_state_is_as_the_tests_say(memory: Database) -> None:
    made = history().context(TODAY, ()).current_metrics
    assert made.form_status == "balanced" and made.fitness_ctl is not None and 42 <= made.fitness_ctl <= 45
    assert history(tss=150.0).context(TODAY, ()).current_metrics.form_status in ("very_fatigued", "overreached")
    found = coach(memory, RIGHT_WEEK).plan_week(add(memory), "Get fit.", today=TODAY)
    assert found.change.verdict == "applied", found.change.reasons
