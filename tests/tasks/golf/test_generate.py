from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from fieldtune.errors import UserError
from fieldtune.prepare.near_duplicates import NearDuplicates
from fieldtune.records import Example
from fieldtune.tasks.golf.config import Data, Form
from fieldtune.tasks.golf.generate import draw_swing, generate
from fieldtune.tasks.golf.knowledge import knowledge_at
from fieldtune.tasks.golf.phrases import HEADINGS
from fieldtune.tasks.golf.swing import AREAS, SEVERITY_PHRASE, percent, severity


def rows(form: Form, count: int = 400, seed: int = 1337) -> list[Example]:
    return list(generate(Data(form=form, count=count), knowledge_at(None), seed))


def test_areas_take_turns_and_bands_are_mixed() -> None:
    made = rows(Form.document)
    assert Counter(row.meta["area"] for row in made) == dict.fromkeys(AREAS, 50)
    assert all(len({row.meta["area"] for row in made[i : i + 8]}) == 8 for i in range(0, 400, 8))
    assert len({tuple(row.meta["area"] for row in made[i : i + 8]) for i in range(0, 400, 8)}) > 40
    assert min(Counter(row.meta["band"] for row in made).values()) > 80
    assert [row.id for row in made[:2]] == ["golf-000000", "golf-000001"]
    assert all(row.group == row.id and row.source == "golf" for row in made)


def test_a_drawn_swing_is_within_its_ranges() -> None:
    rng = random.Random(1)
    for _ in range(500):
        swing = draw_swing(rng, "balance")
        assert 0.20 <= swing.score <= 0.85
        assert swing.score < swing.target <= 0.95
        assert swing.scores["balance"] == swing.score
        assert all(0.20 <= score <= 0.95 and score == round(score, 2) for score in swing.scores.values())


@pytest.mark.parametrize("form", list(Form))
def test_the_answer_has_its_sections_and_figures(form: Form) -> None:
    areas = knowledge_at(None).areas
    names = {(key, fault.id): fault.name for key, area in areas.items() for fault in area.faults}
    for row in rows(form, 80):
        answer, meta = row.answer, row.meta
        headings = [line for line in answer.splitlines() if line.endswith(":")]
        assert headings == list(HEADINGS[form])
        assert f"our {AREAS[meta['area']]} score is {percent(meta['score'])}" in answer
        assert percent(meta["target"]) in answer
        assert SEVERITY_PHRASE.findall(answer) == [meta["band"]]
        assert meta["band"] == severity(meta["score"])
        assert all(drill in answer for drill in meta["drills"])
        if form is not Form.short:
            assert names[meta["area"], meta["fault"]].casefold() in answer.casefold()
            assert meta["swing_type"].replace("_", " ") in answer
        assert "{" not in answer and "  " not in answer and ".." not in answer


def test_a_short_answer_is_short() -> None:
    made = rows(Form.short, 1000)
    assert max(len(row.answer.split()) for row in made) <= 75
    assert max(len(row.prompt[0].text) for row in made) < 190


def test_worse_scores_and_wider_gaps_ask_for_more_drills() -> None:
    counts: dict[tuple[str, bool], set[int]] = {}
    for row in rows(Form.document):
        wide = row.meta["target"] - row.meta["score"] > 0.221
        counts.setdefault((row.meta["band"], wide), set()).add(len(row.meta["drills"]))
    assert counts["major", True] == {3}
    assert counts["minor", True] == {2}
    assert counts["minor", False] == {1, 2}


@pytest.mark.parametrize("form", list(Form))
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(form: Form) -> None:
    assert rows(form, 24) == rows(form, 24)
    assert rows(form, 24) == rows(form, 40)[:24]
    assert {row.answer for row in rows(form, 24)}.isdisjoint(row.answer for row in rows(form, 24, seed=2))


def test_rows_do_not_depend_on_the_process(root: Path) -> None:
    code = (
        "import hashlib\nfrom fieldtune.tasks.golf.task import TASK\nfrom fieldtune.tasks.golf.config import Data\n"
        "print(hashlib.sha256(repr(list(TASK.examples(Data(count=40), 7))).encode()).hexdigest())"
    )
    here = hashlib.sha256(repr(list(generate(Data(count=40), knowledge_at(None), 7))).encode()).hexdigest()
    env = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONHASHSEED": "4242"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_rows_are_made_one_at_a_time() -> None:
    made = generate(Data(form=Form.full, count=10**9), knowledge_at(None), 1)
    list(islice(made, 100))
    tracemalloc.start()
    try:
        for _ in islice(made, 1000):
            pass
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("form", "most"), [(Form.document, 0.02), (Form.full, 0.02), (Form.short, 0.15)])
def test_few_rows_are_near_duplicates(form: Form, most: float) -> None:
    duplicates = NearDuplicates(0.8)
    made = rows(form, 800)
    for row in made:
        duplicates.add(row.text)
    groups = Counter(duplicates.groups().tolist())
    assert sum(count for count in groups.values() if count > 1) <= most * len(made)


def test_two_rows_of_an_area_share_few_phrases() -> None:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.casefold().split()
        return set(zip(words, words[1:], words[2:], strict=False))

    texts = [shingles(row.answer) for row in rows(Form.document) if row.meta["area"] == "balance"]
    alike = [len(a & b) / len(a | b) for i, a in enumerate(texts) for b in texts[:i]]
    assert sorted(alike)[int(0.99 * len(alike))] < 0.6


def test_no_rows_asked_for() -> None:
    with pytest.raises(UserError, match=r"data\.count=0 makes no rows"):
        rows(Form.document, 0)
