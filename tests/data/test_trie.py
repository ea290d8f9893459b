"""Trees of rows: every row is the segments on its way, and the tree is as small as it can be."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fieldtune.data.trie import Ids, fewest_tokens, segments, trie_order


def random_rows(chance: random.Random) -> list[Ids]:
    letters = chance.choice([1, 2, 3, 300])
    lengths = [chance.randint(1, 8) for _ in range(chance.randint(1, 9))]
    rows = [np.array([chance.randrange(letters) for _ in range(length)], dtype=np.int32) for length in lengths]
    return [rows[index] for index in trie_order(rows)]


@pytest.mark.parametrize("fewest", [1, 3, 10**9])
def test_each_row_is_the_segments_on_its_way(fewest: int) -> None:
    chance = random.Random(fewest)
    for _ in range(500):
        rows = random_rows(chance)
        tree = segments(rows, fewest)
        for number, row in enumerate(rows):
            way = [part for part in tree if part.first <= number < part.last]
            assert np.concatenate([rows[part.first][part.start : part.end] for part in way]).tolist() == row.tolist()


def test_a_tree_holds_each_distinct_prefix_once() -> None:
    chance = random.Random(0)
    for _ in range(500):
        rows = random_rows(chance)
        prefixes = {tuple(row[: end + 1]) for row in rows for end in range(len(row))}
        assert sum(part.length for part in segments(rows, 1)) == fewest_tokens(rows) == len(prefixes)


def test_worked_out_by_hand() -> None:
    rows = [np.array(row, dtype=np.int32) for row in ([7, 8, 1, 2], [7, 8, 1, 3, 4], [7, 9], [5])]
    ordered = [rows[index] for index in trie_order(rows)]
    assert [row.tolist() for row in ordered] == [[5], [7, 8, 1, 2], [7, 8, 1, 3, 4], [7, 9]]
    found = [(part.first, part.last, part.start, part.end) for part in segments(ordered, 2)]
    assert found == [(0, 1, 0, 1), (1, 4, 0, 1), (1, 3, 1, 3), (1, 2, 3, 4), (2, 3, 3, 5), (3, 4, 1, 2)]
    assert fewest_tokens(rows) == 8
    assert sum(part.length for part in segments(ordered, 3)) == 9  # the 7 saves but two tokens: not worth it
