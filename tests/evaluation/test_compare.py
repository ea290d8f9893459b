"""Base beside tuned, on three rows worked out by hand."""

from __future__ import annotations

import pytest

from fieldtune.evaluation.compare import breakdowns, compare, score_rows
from fieldtune.evaluation.metrics import Resampling, run_hashes
from fieldtune.evaluation.predict import Predictions
from fieldtune.models.generate import Answer
from fieldtune.records import Example, Message
from fieldtune.tasks.jsonl.task import TASK

REFERENCES = ("red apples", "two", "the old oak by the river has nine rings")
EXAMPLES = [
    Example(f"row-{number}", (Message("user", ("?",)), Message("assistant", (answer,))), source, f"row-{number}")
    for number, (answer, source) in enumerate(zip(REFERENCES, ("a", "b", "a"), strict=True))
]
BASE = Predictions(
    [(4.0, 2), (3.0, 1), (9.0, 9)], [Answer("green pears", 2, False), Answer("two", 1, True), Answer("", 0, True)]
)
TUNED = Predictions(
    [(2.0, 2), (1.0, 1), (3.0, 9)],
    [Answer("Red  apples", 2, True), Answer("two", 1, True), Answer(REFERENCES[2], 9, True)],
)
PREDICTIONS = {"base": BASE, "tuned": TUNED}
SCORED = score_rows(TASK, EXAMPLES, PREDICTIONS, run_hashes([REFERENCES[2]]))


def test_scores_of_each_row() -> None:
    assert [score.values["exact"] for score in SCORED["base"]] == [0.0, 1.0, 0.0]
    assert [score.values["exact"] for score in SCORED["tuned"]] == [1.0, 1.0, 1.0]
    assert [score.values["loss"] for score in SCORED["base"]] == [2.0, 3.0, 1.0]
    assert [score.values["ended"] for score in SCORED["base"]] == [0.0, 1.0, 1.0]
    assert [score.values["overlap"] for score in SCORED["tuned"]] == [None, None, 1.0]
    assert [score.values["repetition"] for score in SCORED["tuned"]] == [None, None, 0.0]


def test_each_metric_has_both_systems_and_their_difference() -> None:
    rows = {row["name"]: row for row in compare(TASK, PREDICTIONS, SCORED, Resampling(500, 0))}
    assert list(rows) == ["loss", "perplexity", "exact", "word_f1", "ended", "repetition", "overlap"]
    loss = rows["loss"]
    assert loss["base"]["value"] == pytest.approx(16 / 12) and loss["tuned"]["value"] == pytest.approx(6 / 12)
    assert loss["difference"]["value"] == pytest.approx(-10 / 12)
    assert rows["perplexity"]["difference"] is None
    exact = rows["exact"]
    assert exact["base"]["value"] == pytest.approx(1 / 3) and exact["tuned"]["value"] == 1.0
    assert exact["difference"]["value"] == pytest.approx(2 / 3) and exact["difference"]["n"] == 3
    assert exact["tuned"]["low"] < 1.0  # three of three is no certainty
    assert rows["repetition"]["base"] is None and rows["repetition"]["difference"] is None
    assert rows["repetition"]["tuned"]["n"] == 1


def test_without_a_base_there_is_no_difference() -> None:
    scored = {"tuned": SCORED["tuned"]}
    for row in compare(TASK, {"tuned": TUNED}, scored, Resampling(200, 0)):
        assert row["base"] is None and row["difference"] is None


def test_breakdowns_are_means_of_groups() -> None:
    (table,) = breakdowns(TASK, EXAMPLES, SCORED)
    assert table["name"] == "source"
    first, second = table["groups"]
    assert (first["group"], first["n"], second["group"], second["n"]) == ("a", 2, "b", 1)
    assert first["values"]["exact"] == {"base": 0.0, "tuned": 1.0}
    assert second["values"]["exact"] == {"base": 1.0, "tuned": 1.0}
