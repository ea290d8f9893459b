"""Likeness to a reference, by hand, and where a package is not there."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from fieldtune.evaluation import likeness
from fieldtune.evaluation.predict import Predictions
from fieldtune.models.generate import Answer
from fieldtune.records import Example, Message
from fieldtune.tasks.base import LIKENESS, METEOR, ROUGE_L, Score

needs_words = pytest.mark.skipif(importlib.util.find_spec("rouge_score") is None, reason="needs fieldtune[text]")
REFERENCE = "The cat sat on the mat."


@needs_words
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("the CAT sat, on the mat", 1.0),
        ("The cat is on the mat.", 5 / 6),  # "the cat on the mat" of six and six
        ("mat the on sat cat the", 1 / 2),  # "the on the"
        ("The cat sat", 2 / 3),  # all of three, half of six
        ("dogs run", 0.0),
        ("", 0.0),
    ],
)
def test_rouge_l(answer: str, expected: float) -> None:
    assert likeness.rouge_l(REFERENCE, answer) == pytest.approx(expected)


@needs_words
@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        (REFERENCE, "the cat sat on the mat", 1 - 0.5 / 6**3),  # six words in one chunk
        (REFERENCE, "on the mat the cat sat", 1 - 0.5 * (2 / 6) ** 3),  # two chunks, though "the" is there twice
        ("keep your knees bent", "keeping your knee bent", 1 - 0.5 / 4**3),  # by their stems
        ("the cat sat", "the cat", 10 * 2 / 3 / (2 / 3 + 9) * (1 - 0.5 / 2**3)),  # P 1, R 2/3
        ("the cat sat", "the big cat sat", 10 * 3 / 4 / (1 + 9 * 3 / 4) * (1 - 0.5 * (2 / 3) ** 3)),
        ("lower knees", "knee lowered knees", 10 * 2 / 3 / (1 + 9 * 2 / 3) * (1 - 0.5 * (1 / 2) ** 3)),  # equal first
        ("the cat", "dogs run", 0.0),
        ("the cat", "", 0.0),
        ("", "", 1.0),
    ],
)
def test_meteor(reference: str, answer: str, expected: float) -> None:
    assert likeness.meteor(reference, answer) == pytest.approx(expected)


@needs_words
def test_meteor_of_a_long_text_is_that_of_the_same_words() -> None:
    text = " ".join(f"keep the hips low and the back long number {number % 7}" for number in range(15))
    assert likeness.meteor(text, text) == pytest.approx(1, abs=1e-6)


class Asking:
    metrics = LIKENESS


class Silent:
    metrics = ()


EXAMPLES = [
    Example(str(number), (Message("user", ("?",)), Message("assistant", (REFERENCE,))), "s", str(number))
    for number in range(2)
]
PREDICTED = Predictions([(1.0, 1)] * 2, [Answer("the cat sat", 3, True), None])


@needs_words
def test_only_a_task_that_asks_gets_the_figures() -> None:
    scores = [Score({"exact": 0.0}), Score({})]
    task: Any = Asking()
    first, second = likeness.with_likeness(task, EXAMPLES, PREDICTED, scores)
    assert first.values["exact"] == 0.0 and second == Score({})  # it was not asked
    assert first.values[ROUGE_L.name] == pytest.approx(2 / 3)
    assert first.values[METEOR.name] == pytest.approx(likeness.meteor(REFERENCE, "the cat sat"))
    silent: Any = Silent()
    assert likeness.with_likeness(silent, EXAMPLES, PREDICTED, scores) == scores


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = Asking()
    nothing = {name: ("no_such_package", how) for name, (_, how) in likeness.NEEDED.items()}
    monkeypatch.setattr(likeness, "NEEDED", nothing)
    said = likeness.missing(task)
    assert len(said) == len(LIKENESS) and all("no_such_package" in line and "pip install" in line for line in said)
    assert likeness.with_likeness(task, EXAMPLES, PREDICTED, [Score({}), Score({})]) == [Score({}), Score({})]
    silent: Any = Silent()
    assert likeness.missing(silent) == []
