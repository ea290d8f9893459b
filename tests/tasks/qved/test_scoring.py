"""What counts as named in a coach's answer."""

from __future__ import annotations

import pytest

from fieldtune.records import Example, Message
from fieldtune.sources.figures.exercises import MOVES, Move, label_backward
from fieldtune.tasks.qved.scoring import METRICS, faults_in, majority, score_answer


def example_of(move: Move, answer: str | None = None) -> Example:
    faults = {
        other.variation: [other.description.split(" - ", 1)[1]] for other in MOVES if other.exercise == move.exercise
    }
    meta = {
        "exercise": move.exercise,
        "fault": move.variation,
        "exercises": sorted({other.exercise for other in MOVES}),
        "faults": faults,
    }
    turns = (Message("user", ("How is it?",)), Message("assistant", (answer or move.description,)))
    return Example("x", turns, "qved", "x", meta)


CAVED = next(move for move in MOVES if move.variation == "knees cave in")


@pytest.mark.parametrize("move", MOVES, ids=[move.label for move in MOVES])
def test_a_reference_is_right_and_every_other_is_wrong(move: Move) -> None:
    example = example_of(move)
    assert score_answer(example, example.answer).values == {"exercise": 1.0, "fault": 1.0, "both": 1.0}
    for other in MOVES:
        if other is not move:
            assert score_answer(example, other.description).values["both"] == 0.0


@pytest.mark.parametrize(
    ("answer", "exercise", "fault"),
    [
        ("Nice squats, but your knees cave in.", 1, 1),
        ("SQUAT - Knees cave in!", 1, 1),
        ("squat - knees cave in\nsquat - shallow depth", 1, 0),
        ("squat - knees cave in\nlunge - knees cave in", 0, 1),
        ("A squat or a lunge; the knees cave in or the depth is shallow.", 0, 1),
        ("squat - knees cave in, much like in a lunge", 1, 1),
        ("squat - looks fine", 1, 0),
        ("push them outward, over your toes, the knees are caving", 0, 1),
        ("squat - the knees cave inward; press them outward, over the toes", 1, 1),
        ("lunge - good form: a long step and an upright chest; keep it up", 0, 0),
        ("squat, lunge, jumping jack, push-up", 0, 0),
        ("", 0, 0),
    ],
)
def test_answers_in_other_words(answer: str, exercise: int, fault: int) -> None:
    score = score_answer(example_of(CAVED), answer)
    assert (score.values["exercise"], score.values["fault"]) == (exercise, fault), score.checks
    assert score.values["both"] == min(exercise, fault)
    assert len(score.checks) == 2 - exercise - fault


def test_what_the_reference_does_not_say_is_not_asked() -> None:
    score = score_answer(example_of(CAVED, "Keep going, nice work."), "squat - knees cave in")
    assert score.values == {"exercise": None, "fault": None, "both": None}
    foreign = Example("x", example_of(CAVED).messages, "web", "x", {})
    assert set(score_answer(foreign, "squat").values.values()) == {None}
    assert [metric.name for metric in METRICS] == ["exercise", "fault", "both", "order"]


def test_a_description_wins_over_words_in_it() -> None:
    faults = {"right": ["the left arm is lower than the right"], "left": ["the arms are even"]}
    assert faults_in("The left arm is lower than the right.", faults) == {"right"}


def test_faults_that_only_the_order_tells() -> None:
    drops, rises = (next(move for move in MOVES if move.variation == f"{way} too fast") for way in ("drops", "rises"))
    assert label_backward(drops) == rises.label and label_backward(rises) == drops.label
    assert [label_backward(move) for move in MOVES if not move.ordered] == [None] * 13
    example = example_of(drops)
    example.meta["backward"] = rises.label
    assert score_answer(example, drops.description).values["order"] == 1
    assert score_answer(example, rises.description).values["order"] == 0
    assert "order" not in score_answer(example_of(CAVED), CAVED.description).values


def test_the_majority_says_one_thing() -> None:
    rows = [example_of(CAVED), example_of(MOVES[0]), example_of(CAVED)]
    baseline = majority(rows)
    assert baseline is not None and "knees cave in" in baseline.about
    assert baseline.score(rows[0])["both"] == 1 and baseline.score(rows[1])["exercise"] == 1
    assert baseline.score(rows[1])["fault"] == 0 and baseline.answer == rows[0].answer
    assert majority([]) is None
