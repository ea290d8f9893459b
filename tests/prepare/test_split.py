from __future__ import annotations

import numpy as np
import pytest

from fieldtune.errors import UserError
from fieldtune.prepare.near_duplicates import straddling
from fieldtune.prepare.split import assign, join_groups

SHARES = (0.85, 0.10, 0.05)


def counts(splits: np.ndarray) -> list[int]:
    return [int(count) for count in np.bincount(splits, minlength=3)]


@pytest.mark.parametrize("seed", [0, 1, 1337])
def test_single_rows_are_dealt_exactly(seed: int) -> None:
    assert counts(assign([f"row-{i}" for i in range(400)], SHARES, seed)) == [340, 40, 20]


@pytest.mark.parametrize(
    ("rows", "expected"), [(10, [8, 1, 1]), (3, [1, 1, 1]), (37, [31, 4, 2]), (1000, [850, 100, 50])]
)
def test_largest_remainder_and_at_least_one(rows: int, expected: list[int]) -> None:
    assert counts(assign(range(rows), SHARES, 1)) == expected


def test_groups_of_many_sizes_stay_whole_and_near_their_shares() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(300), rng.integers(1, 6, 300))[rng.permutation(900) % 800]
    splits = assign(groups, SHARES, 7)
    assert straddling(groups, splits) == 0
    assert np.abs(np.array(counts(splits)) / len(groups) - SHARES).max() < 0.01


def test_equal_groups_of_twenty() -> None:
    assert counts(assign([i // 20 for i in range(400)], SHARES, 1)) == [340, 40, 20]


def test_a_giant_group_goes_to_train_and_the_rest_is_shared() -> None:
    groups = [0] * 390 + list(range(1, 11))
    splits = assign(groups, SHARES, 1)
    assert set(splits[:390].tolist()) == {0}
    assert counts(splits) == [390, 7, 3]


def test_large_groups_prefer_train() -> None:
    groups = ["big"] * 30 + ["large"] * 30 + [f"row-{i}" for i in range(340)]
    splits = assign(groups, SHARES, 2)
    assert set(splits[:60].tolist()) == {0}
    assert counts(splits) == [340, 40, 20]


def test_three_groups_fill_three_splits() -> None:
    assert sorted(counts(assign(["a"] * 50 + ["b"] * 49 + ["c"], SHARES, 1))) == [1, 49, 50]


def test_seed_decides() -> None:
    rows = range(200)
    assert assign(rows, SHARES, 1).tolist() == assign(rows, SHARES, 1).tolist()
    assert assign(rows, SHARES, 1).tolist() != assign(rows, SHARES, 2).tolist()


def test_a_share_of_zero_gets_nothing() -> None:
    assert counts(assign(range(100), (0.9, 0.0, 0.1), 1)) == [90, 0, 10]


@pytest.mark.parametrize("groups", [["same"] * 40, [1, 1, 2, 2], []])
def test_too_few_groups(groups: list[str | int]) -> None:
    message = f"{len(groups)} rows form only {len(set(groups))} independent groups; at least 3 are needed"
    with pytest.raises(UserError, match=message) as error:
        assign(groups, SHARES, 1)
    assert "\n" not in str(error.value) and "raise data.near_duplicate" in str(error.value)


@pytest.mark.parametrize("shares", [(0.5, -0.1, 0.6), (0.0, 0.0), (float("nan"), 1.0)])
def test_bad_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="0 or more"):
        assign(range(9), shares, 1)


def test_join_groups_follows_links_of_both_kinds() -> None:
    swings = ["s1", "s1", "s2", "s3", "s4", "s4"]
    near = np.array([0, 1, 1, 3, 4, 3])
    assert join_groups(swings, near).tolist() == [0, 0, 0, 3, 3, 3]
    assert join_groups([], []).tolist() == []


def test_join_groups_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        join_groups([1, 2, 3], [1, 2])
