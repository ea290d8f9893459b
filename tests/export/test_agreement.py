"""Figures of agreement, worked out by hand, and the bounds that fail an export."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from fieldtune.errors import UserError
from fieldtune.export.agreement import agreement, must_be_near, must_keep
from fieldtune.export.options import Bounds
from fieldtune.models.exported import Said


def said(*rows: list[list[float]], answers: tuple[str, ...] = ("a", "b")) -> Said:
    return Said([np.array(row, dtype=np.float32) for row in rows], list(answers[: len(rows)]))


def test_a_model_agrees_with_itself() -> None:
    one = said([[1, 2, 3]], [[0, 5, 1]])
    found = agreement(one, one)
    assert (found.rows, found.places, found.difference, found.kl) == (2, 2, 0, 0)
    assert (found.agreement, found.answers) == (1, 1)


def test_worked_by_hand() -> None:
    # Shares 1/2, 1/2 against 3/4, 1/4: the divergence is ln(2) - ln(3)/2. The second place is the same in both.
    first = said([[0, 0], [4, 1]], answers=("yes",))
    second = said([[log(3), 0], [4, 1]], answers=("yes.",))
    found = agreement(first, second)
    assert found.kl == pytest.approx((log(2) - log(3) / 2) / 2)
    assert found.difference == pytest.approx(log(3))
    assert (found.agreement, found.answers) == (1, 0)


def test_what_is_likeliest_may_change() -> None:
    assert agreement(said([[1, 2], [1, 2]]), said([[2, 1], [1, 2]])).agreement == 0.5


def test_a_constant_on_all_logits_changes_nothing_said() -> None:
    found = agreement(said([[1, 2, 3]]), said([[11, 12, 13]]))
    assert found.kl == pytest.approx(0, abs=1e-12) and found.difference == 10


def test_a_padded_vocabulary_is_cut() -> None:
    assert agreement(said([[1, 2]]), said([[1, 2, 99]])).difference == 0


def test_bounds() -> None:
    far = agreement(said([[0, 0], [1, 2]]), said([[log(3), 0], [2, 1]]))
    must_be_near("it", far, 1.2)
    must_keep("it", far, Bounds(kl=1, agreement=0.5))
    for fails in (
        lambda: must_be_near("it", far, 1.0),
        lambda: must_keep("it", far, Bounds(kl=0.01, agreement=0.5)),
        lambda: must_keep("it", far, Bounds(kl=1, agreement=0.6)),
    ):
        with pytest.raises(UserError, match="nothing is published"):
            fails()


def test_a_number_that_is_none_is_not_near() -> None:
    broken = agreement(said([[1, 2]]), said([[float("nan"), 2]]))
    with pytest.raises(UserError):
        must_be_near("it", broken, 1e9)
    with pytest.raises(UserError):
        must_keep("it", broken, Bounds(kl=1e9, agreement=0))
