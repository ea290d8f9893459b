from __future__ import annotations

import re

import pytest

from fieldtune.errors import UserError
from fieldtune.prepare.mixture import mix


def test_the_scarcest_source_decides_the_total() -> None:
    rows = mix({"club": 900, "web": 2000}, {"club": 3, "web": 1}, seed=1)
    assert {name: len(indices) for name, indices in rows.items()} == {"club": 900, "web": 300}
    assert rows["club"].tolist() == list(range(900))
    assert rows["web"].tolist() == sorted(set(rows["web"].tolist())) and rows["web"].max() < 2000


def test_weights_are_taken_as_the_decimals_that_were_written() -> None:
    rows = mix({"a": 10, "b": 90, "c": 1000}, {"a": 0.1, "b": 0.9, "c": 1.0}, seed=1)
    assert [len(rows[name]) for name in "abc"] == [10, 90, 100]


def test_thirds_are_rounded_by_largest_remainder_within_what_there_is() -> None:
    rows = mix({"a": 34, "b": 50, "c": 50}, {"a": 1, "b": 1, "c": 1}, seed=1)
    assert [len(indices) for indices in rows.values()] == [34, 34, 34]
    rows = mix({"a": 5, "b": 99}, {"a": 2, "b": 5}, seed=1)  # 17.5 rows, so 17: 4.86 and 12.14
    assert [len(indices) for indices in rows.values()] == [5, 12]


def test_a_single_source_is_used_whole() -> None:
    assert mix({"a": 7}, {"a": 0.3}, seed=1)["a"].tolist() == list(range(7))


def test_seed_decides_and_other_sources_do_not() -> None:
    def web(counts: dict[str, int], seed: int) -> list[int]:
        return [int(row) for row in mix(counts, dict.fromkeys(counts, 1.0), seed)["web"]]

    assert web({"club": 50, "web": 500}, 1) == web({"web": 500, "golf": 50}, 1)
    assert web({"club": 50, "web": 500}, 1) != web({"club": 50, "web": 500}, 2)


@pytest.mark.parametrize(
    ("counts", "weights", "message"),
    [
        ({"a": 5}, {"a": 0.0}, "the weight of source 'a' is 0.0"),
        ({"a": 5}, {"a": -1.0}, "above 0"),
        ({"a": 5}, {"a": float("inf")}, "above 0"),
        ({"a": 5}, {"a": 1.0, "b": 1.0}, "'b' is for no source; sources: a"),
        ({"a": 5, "b": 5}, {"a": 1.0}, "source 'b' has no weight"),
        ({"a": 5, "b": 0}, {"a": 1.0, "b": 1.0}, "source 'b' has no rows"),
        ({}, {}, "no sources"),
        ({"a": 5, "b": 5}, {"a": 1000.0, "b": 1.0}, "no row for source 'b'"),
    ],
)
def test_errors(counts: dict[str, int], weights: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        mix(counts, weights, seed=1)
    assert "\n" not in str(error.value)
