from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fieldtune.errors import UserError
from fieldtune.prepare import near_duplicates
from fieldtune.prepare.near_duplicates import NearDuplicates, connected_components, straddling, words

SRC = Path(near_duplicates.__file__).parents[2]
VOCABULARY = ["".join(random.Random(i).choices("abcdefghijklmnopqrstuvwxyz", k=2 + i % 8)) for i in range(900)]
TEMPLATE = (
    "The golfer swings with a pelvis tilt of {n} degrees and a knee flexion of {n} degrees at address while the head"
    " moves {n} centimeters toward the target. At the top the lead arm reaches {n} degrees and the wrist hinge {n}"
    " degrees, with a tempo of {n} to {n}. Advice: {w} {w} {w} {w} and keep {w} {w} {w} for {n} rounds."
)


def group(rows: Sequence[str], threshold: float = 0.8) -> list[int]:
    finder = NearDuplicates(threshold)
    for row in rows:
        finder.add(row)
    return [int(number) for number in finder.groups()]


def varied_row(rng: random.Random) -> list[str]:
    length = rng.randint(8, 120) if rng.random() < 0.7 else rng.randint(120, 500)
    return [str(rng.randint(0, 999) / 10) if rng.random() < 0.1 else rng.choice(VOCABULARY) for _ in range(length)]


def templated_row(rng: random.Random, template: str = TEMPLATE) -> list[str]:
    slots = {"{n}": lambda: str(rng.randint(0, 99)), "{w}": lambda: rng.choice(VOCABULARY)}
    return [slots[word]() if word in slots else word for word in template.split()]


def with_one_change(row: list[str], rng: random.Random) -> list[str]:
    place = rng.randrange(len(row))
    new = rng.choice((["changed"], [str(rng.randint(1000, 9999))], [row[place], "inserted"], []))
    return [*row[:place], *new, *row[place + 1 :]]


@pytest.mark.parametrize(("make", "count"), [(varied_row, 400), (templated_row, 400)])
def test_a_row_with_one_word_changed_is_found(make: Callable[[random.Random], list[str]], count: int) -> None:
    rng = random.Random(7)
    base = [make(rng) for _ in range(count)]
    rows = base + [with_one_change(row, rng) for row in base]
    groups = group([" ".join(row) for row in rows])
    found = sum(groups[i] == groups[i + count] for i in range(count))
    assert found >= 0.95 * count
    assert len(set(groups)) >= 0.98 * count  # and the others stay apart


def test_long_templated_rows_below_the_threshold_do_not_run_together() -> None:
    rng = random.Random(11)
    template = " ".join([*(VOCABULARY[i] for i in range(120)), *["{w}"] * 40])  # Jaccard of two rows: about 0.6
    groups = group([" ".join(templated_row(rng, template)) for _ in range(300)])
    assert len(set(groups)) >= 295


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 2 + 3?", "What is 2 + 4?"),
        ("Keep the left knee bent through the swing", "Keep the left knee bent through swing"),
        ("It's a WELL-known   fact.", "its a well known fact"),
        ("the hips turn 45.5 degrees", "the hips turn 38 degrees"),
        ("one two three four", "one two three four five"),
        ("Ein Schlag mit großer Kraft", "ein schlag mit GROSSER kraft"),
        ("高尔夫挥杆时保持头部稳定", "高尔夫挥杆时保持身部稳定"),
        ("+ - +", "+  - +"),
        ("", " "),
    ],
)
def test_alike(first: str, second: str) -> None:
    assert group([first, "something else altogether here", second]) == [0, 1, 0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("red cat", "red bat"),
        ("bend your knee", "bend your wrist"),
        ("one two three", "one two three four"),
        ("keep the left arm straight", "keep a left knee straight"),  # two words changed
        ("a b c d e f", "b c d e f g h"),
        ("+ - +", "- + -"),
        ("", "?"),
    ],
)
def test_unlike(first: str, second: str) -> None:
    assert group([first, second]) == [0, 1]


def test_groups_are_named_by_their_first_row_and_join_through_others() -> None:
    rows = ["w x y z 1 2", "other text of some words", "w x y z 1 3", "w x y q 1 3", "Other text, of some words!"]
    assert group(rows) == [0, 1, 0, 0, 1]


def test_threshold_decides_how_short_a_row_a_change_may_make_alike() -> None:
    pair = ["swing slowly and keep your head still", "swing slowly and keep your head down"]
    assert group(pair, 0.8) == [0, 0]
    assert group(pair, 0.9) == [0, 1]
    assert group([*pair, pair[0].upper()], 1.0) == [0, 1, 0]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, float("nan")])
def test_threshold_outside_its_range(threshold: float) -> None:
    with pytest.raises(UserError, match="above 0 and at most 1"):
        NearDuplicates(threshold)


def test_no_rows_and_rows_added_after_grouping() -> None:
    finder = NearDuplicates()
    assert finder.groups().tolist() == []
    finder.add("keep your head still at impact")
    assert finder.groups().tolist() == [0]
    finder.add("keep your head down at impact")
    assert finder.groups().tolist() == [0, 0]


def test_one_bucket_with_every_row_in_it_is_not_quadratic() -> None:
    assert set(group([f"the answer to the question of the day is number {i}" for i in range(3000)])) == {0}


def test_the_same_in_every_process() -> None:
    code = (
        "from fieldtune.prepare.near_duplicates import NearDuplicates, _CONSTANTS\n"
        "f = NearDuplicates()\n"
        "for i in range(60): f.add(' '.join(f'w{(i // 2 * 7 + j) % 90}' for j in range(80 - i % 2)))\n"
        "print(f.groups().tolist(), f._signatures[:8].tolist())"
    )
    outputs = []
    for salt in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": salt, "PYTHONPATH": str(SRC)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def test_words_keep_numbers_and_compounds_whole() -> None:
    assert words("Don't turn 3.5° — a long-term 10:30 km/h!") == [
        "dont",
        "turn",
        "3.5",
        "a",
        "long-term",
        "10:30",
        "km/h",
    ]


def test_straddling_counts_groups_in_more_than_one_split() -> None:
    groups = np.array([0, 0, 2, 2, 4, 4, 4])
    assert straddling(groups, np.array([0, 1, 2, 2, 0, 1, 2])) == 2
    assert straddling(groups, np.zeros(7, dtype=np.int64)) == 0


def test_components_of_random_graphs_agree_with_a_search() -> None:
    rng = np.random.default_rng(5)
    for edges in (0, 10, 40, 200):
        a, b = rng.integers(0, 60, (2, edges))
        expected = np.arange(60)
        for _ in range(60):
            for left, right in zip(a, b, strict=True):
                expected[[left, right]] = min(expected[left], expected[right])
        assert connected_components(60, a, b).tolist() == expected.tolist()
