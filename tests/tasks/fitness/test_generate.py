"""What is generated is valid and safe by checks that do not come from the generator, varied, and seeded."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fieldtune.records import Example
from fieldtune.tasks.fitness import prompt
from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.conversations import check_conversation
from fieldtune.tasks.fitness.generate import generate
from fieldtune.tasks.fitness.schema import ANSWERS
from fieldtune.tasks.fitness.scoring import METRICS, context_of, facts_of, score_answer
from fieldtune.tasks.fitness.validation import parse_part

ROWS = list(generate(Data(count=1200), 7))


def test_every_answer_is_valid_and_safe() -> None:
    assert not [(row.id, found) for row in ROWS if (found := check_conversation(row.messages))]


@pytest.mark.slow
def test_ten_thousand_answers_are_valid_and_safe() -> None:
    rows = generate(Data(count=10_000), 99)
    assert not [(row.id, found) for row in rows if (found := check_conversation(row.messages))]


def test_kinds_hard_cases_and_actions_are_there() -> None:
    kinds = Counter(row.meta["kind"] for row in ROWS)
    assert kinds.keys() == {"coaching", "plan_modification", "weekly_plan"}
    assert abs(kinds["plan_modification"] / len(ROWS) - 0.6) < 0.05
    changes = [row for row in ROWS if row.meta["kind"] == "plan_modification"]
    assert {row.meta["action"] for row in changes} == {"modify", "skip", "replace", "add", "none"}
    assert {"red_flag", "illness", "injury", "little_data", "off_topic", "catch_up"} <= {
        row.meta["reason"] for row in changes
    }
    common = Counter((row.meta["action"], row.meta["workout"]) for row in changes).most_common(1)[0][1]
    assert common / len(changes) < 0.4  # what always giving the most common decision would score
    assert 0.2 < sum(row.meta["hard"] == "hard" for row in changes) / len(changes) < 0.4
    assert {row.meta["status"] for row in ROWS} >= {"overreached", "very_fatigued", "fresh", "unknown"}


def test_rows_of_an_athlete_are_one_group_and_texts_differ() -> None:
    assert max(Counter(row.group for row in ROWS).values()) == Data().rows_per_athlete
    assert len({row.prompt_text for row in ROWS}) == len(ROWS)
    asked = {prompt.words_of(row.messages[1].text) for row in ROWS}
    assert len(asked) > 350


def test_the_seed_and_nothing_else_decides() -> None:
    first, second = (list(generate(Data(count=60), seed)) for seed in (7, 8))
    assert first == ROWS[:60] and first != second
    assert list(generate(Data(count=12), 7)) == ROWS[:12]


def test_an_answer_scores_full_marks_on_its_own_row() -> None:
    for row in ROWS[:300]:
        score = score_answer(row, row.answer)
        assert score.checks == () and set(score.values.values()) <= {1.0, None}, (row.id, score)
    applies = {name for row in ROWS[:300] for name, value in score_answer(row, row.answer).values.items() if value}
    assert applies == {metric.name for metric in METRICS}


def test_the_meta_is_what_the_answer_says() -> None:
    for row in ROWS:
        if row.meta["kind"] != "plan_modification":
            continue
        answer, told = parse_part(ANSWERS["plan_modification"], json.loads(row.answer))[0], context_of(row)
        assert answer is not None and told is not None
        action, workouts, direction, sizes = facts_of(answer, told)  # type: ignore[arg-type]
        assert (action, direction) == (row.meta["action"], row.meta["direction"])
        assert list(workouts) == ([row.meta["workout"]] if row.meta["workout"] else [])
        if workouts:
            assert sizes[workouts[0]] == pytest.approx(row.meta["size"], abs=0.001)


def row_of(kind: str, **meta: str) -> Example:
    return next(row for row in ROWS if row.meta["kind"] == kind and meta.items() <= row.meta.items())


def test_other_answers_lose_what_they_get_wrong() -> None:
    row = row_of("plan_modification", action="none", reason="fine")
    assert score_answer(row, "I would rest.").values["json"] == 0.0
    assert score_answer(row, "{}").values | {"safety": 1.0} == score_answer(row, "{}").values
    assert score_answer(row, '{"decision":"no_change"}').values["schema"] == 0.0
    other = row_of("plan_modification", action="skip")
    values = score_answer(other, row.answer).values
    assert values["json"] == values["schema"] == 1.0
    assert values["action"] == values["workout"] == values["decision"] == values["direction"] == values["size"] == 0.0


def test_wrong_figures_of_a_text_are_heard() -> None:
    row = row_of("coaching", reason="form", status="fresh")
    told = context_of(row)
    assert told is not None and told.current_metrics.form_tsb is not None
    right = f"form (TSB) is {told.current_metrics.form_tsb}"
    assert score_answer(row, row.answer).values["facts"] == 1.0
    assert score_answer(row, row.answer.replace(right, "form (TSB) is 99.9")).values["facts"] == 0.0
    assert score_answer(row, "You are fresh.").values["facts"] == 0.0
    week = row_of("coaching", reason="next")
    assert score_answer(week, week.answer.replace("20", "19", 1)).values["facts"] == 0.0
