"""Six rows of three labels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fieldtune.evaluation.classes import class_table, confusion, macro_f1, most_confused
from fieldtune.evaluation.metrics import Resampling

TARGETS, CHOSEN = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2])
NAMES = ("seoi-nage", "tai-otoshi", "o-goshi")


def test_the_matrix_and_its_worst_pairs() -> None:
    matrix = confusion(TARGETS, CHOSEN, 3)
    assert matrix.tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 1]]
    assert most_confused(matrix, NAMES) == [
        {"label": "seoi-nage", "taken_for": "tai-otoshi", "n": 2, "share": pytest.approx(2 / 3)},
        {"label": "tai-otoshi", "taken_for": "seoi-nage", "n": 1, "share": 0.5},
    ]
    assert len(most_confused(matrix, NAMES, most=1)) == 1
    assert most_confused(confusion(TARGETS, TARGETS, 3), NAMES) == []


def test_the_table_of_labels() -> None:
    first, second, third = class_table(TARGETS, CHOSEN, NAMES, Resampling(200, 0))
    assert (first["n"], first["chosen"], first["f1"]) == (3, 2, pytest.approx(2 / 5))
    assert first["precision"]["value"] == 0.5 and first["recall"]["value"] == pytest.approx(1 / 3)
    assert second["precision"]["value"] == pytest.approx(1 / 3) and second["recall"]["value"] == 0.5
    assert third["f1"] == third["recall"]["value"] == 1.0 and third["recall"]["low"] < 0.3  # one of one
    assert macro_f1([first, second, third]) == pytest.approx(0.6)


def test_a_label_that_is_nowhere() -> None:
    *_, last = class_table(TARGETS, CHOSEN, (*NAMES, "uki-goshi"), Resampling(100, 0))
    assert last == {"label": "uki-goshi", "n": 0, "chosen": 0, "precision": None, "recall": None, "f1": None}
    missed, wrong = class_table(np.array([0, 0]), np.array([1, 1]), NAMES[:2], Resampling(100, 0))
    assert (missed["f1"], missed["precision"], wrong["f1"], wrong["recall"]) == (0.0, None, None, None)
    assert macro_f1([missed, wrong]) == 0.0
