from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from fieldtune.records import Example, Message
from fieldtune.tasks.golf.compose import compose
from fieldtune.tasks.golf.config import Data, Form
from fieldtune.tasks.golf.feedback import swing_facts
from fieldtune.tasks.golf.knowledge import knowledge_at
from fieldtune.tasks.golf.scoring import METRICS, parse_sections
from fieldtune.tasks.golf.swing import AREAS, Swing, swing_prompt
from fieldtune.tasks.golf.task import TASK

NAMES = [metric.name for metric in METRICS]


def a_row(form: Form = Form.document, seed: int = 3) -> Example:
    """Setup quality at 45 %, target 72 %."""
    scores = {key: round(0.52 + 0.05 * number, 2) for number, key in enumerate(AREAS)}
    swing = Swing("setup_quality", 0.45, 0.72, {**scores, "setup_quality": 0.45}, "power_swing")
    feedback = compose(random.Random(seed), swing, knowledge_at(None).areas["setup_quality"], form)
    turns = (Message("user", swing_prompt(swing, form)), Message("assistant", (feedback.text,)))
    return Example("golf-000000", turns, "golf", "golf-000000", swing_facts(swing, Data(form=form)))


@pytest.mark.parametrize("form", list(Form))
def test_a_reference_is_right_in_everything(form: Form) -> None:
    for row in TASK.examples(Data(form=form, count=700), 11):
        assert isinstance(row, Example)
        score = TASK.score(row, row.answer)
        assert score.checks == ()
        assert dict(score.values) == dict.fromkeys(NAMES, 1.0)


def without(heading: str) -> Callable[[str], str]:
    return lambda answer: answer.replace(heading + "\n", "")


def swapped(answer: str) -> str:
    blocks = answer.split("\n\n")
    return "\n\n".join([blocks[1], blocks[0], *blocks[2:]])


def emptied(answer: str) -> str:
    blocks = answer.split("\n\n")
    return "\n\n".join([blocks[0].splitlines()[0], *blocks[1:]])


@pytest.mark.parametrize(
    ("spoil", "wrong", "check"),
    [
        (without("WHAT IS HAPPENING (Current Issue):"), {"sections"}, "is missing"),
        (swapped, {"sections"}, "not in the form's order"),
        (emptied, {"sections"}, "is empty"),
        (lambda text: f"{text}\n\n{text}", {"sections"}, "is repeated"),
        (lambda text: text.replace("45%", "54%"), {"score_quoted", "quoted"}, "says the score is 54%, it is 45%"),
        (lambda text: text.replace("45%", "low"), {"score_quoted", "quoted"}, "does not quote the score, 45%"),
        (lambda text: text + " Your score is 50%.", {"score_quoted", "quoted"}, "says the score is 50%"),
        (lambda text: text.replace("72%", "high"), {"target_quoted", "quoted"}, "does not quote the target"),
        (lambda text: text + " The target score is 90%.", {"target_quoted", "quoted"}, "says the target is 90%"),
        (lambda text: text.replace("a moderate", "a major"), {"severity"}, "calls the issue major, it is moderate"),
        (lambda text: text.replace("a moderate", "a certain"), {"severity"}, "does not name the severity"),
        (lambda text: text + " It is a minor problem.", {"severity"}, "calls the issue minor"),
        (lambda text: text + " Then do the Rope Swing Drill.", {"drills"}, "'rope swing drill' is a drill of tempo"),
        (lambda text: text + " Then do the Magic Mat Drill.", {"drills"}, "'Magic Mat Drill' is not a drill"),
        (lambda text: re.sub(r"[\w -]+ Drill", "something", text), {"drills"}, "names no known drill"),
        (lambda text: text.replace("our setup quality score", "our balance score"), {"area"}, "talks about balance"),
    ],
)
def test_a_spoiled_answer_fails_where_it_was_spoiled(spoil: Callable[[str], str], wrong: set[str], check: str) -> None:
    row = a_row()
    spoiled = spoil(row.answer)
    assert spoiled != row.answer
    score = TASK.score(row, spoiled)
    failed = {name for name, value in score.values.items() if value != 1.0}
    # A balance score of 45 % says nothing of the setup, whose figure is still in the text.
    assert failed == wrong
    assert any(check in text for text in score.checks)


@pytest.mark.parametrize("quote", ["45%", "45.0%", "45 %", "45 percent", "0.45", "45/100"])
def test_ways_to_quote_a_score(quote: str) -> None:
    row = a_row(Form.short)
    assert TASK.score(row, row.answer.replace("45%", quote)).values["score_quoted"] == 1.0


def test_other_areas_figures_and_doses_are_no_scores() -> None:
    row = a_row()
    more = " Balance at 82% helps. Your balance score is 82%. Do 3 sets of 45 swings. In a moderate swing keep still."
    assert TASK.score(row, row.answer + more).checks == ()


def test_a_drill_in_small_letters_is_known_and_drill_as_a_word_is_no_name() -> None:
    row = a_row()
    assert TASK.score(row, row.answer.lower()).values["drills"] == 1.0
    assert TASK.score(row, row.answer + "\nFirst Drill: see above. The Next Drill follows.").values["drills"] == 1.0


def test_an_empty_answer_is_wrong_in_everything() -> None:
    assert set(TASK.score(a_row(), "").values.values()) == {0.0}


def test_the_form_decides_which_sections_are_wanted() -> None:
    row = a_row(Form.full)
    assert len(parse_sections(row.answer)) == 7
    assert TASK.score(row, a_row(Form.document).answer).values["sections"] == 0.0
    assert TASK.score(row, row.answer).values["sections"] == 1.0


def test_rows_of_other_sources() -> None:
    row = a_row()
    written = replace(row, source="feedback")
    assert TASK.score(written, row.answer).values["sections"] is None
    assert TASK.score(written, row.answer).values["quoted"] == 1.0
    other = replace(row, meta={})
    assert set(TASK.score(other, row.answer).values.values()) == {None}
