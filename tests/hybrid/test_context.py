"""What a stored athlete's coach is told is what the training rows tell, to the token; and rows pass as answers."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from fieldtune.config import TemplateKind
from fieldtune.data.encode import Encoder
from fieldtune.errors import UserError
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.tokenizer import PretrainedTokenizer
from fieldtune.records import Example
from fieldtune.store.database import Database
from fieldtune.store.fitness import Workout, reading, writing
from fieldtune.tasks.fitness.athletes import simulate
from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.generate import generate
from fieldtune.tasks.fitness.history import read_histories
from fieldtune.tasks.fitness.hybrid.coach import HybridCoach
from fieldtune.tasks.fitness.hybrid.context import add_history, extend_log, shifted, told, usual_plan
from fieldtune.tasks.fitness.rules import context as wrong_in
from fieldtune.tasks.fitness.scoring import context_of
from tests.hybrid.athletes import TODAY, Scripted, add, history, plan
from tests.tasks.fitness.test_history import log_of

SEED = 5
ROWS = list(generate(Data(count=80), SEED))


def stored(database: Database, number: int, row: Example) -> tuple[int, date]:
    """The athlete of a row in a database, with the plan that the row tells of; the row's day."""
    seen = context_of(row)
    assert seen is not None
    made = simulate(random.Random(f"fitness athlete {SEED} {number}"))
    with writing(database) as book:
        return add_history(book, made, seen.upcoming_workouts), seen.today


def test_the_prompt_is_the_training_rows_and_its_answer_passes(memory: Database, tiny_cache: Path) -> None:
    encoder = Encoder(PretrainedTokenizer(ensure_tiny("mistral", tiny_cache)), TemplateKind.chat)
    verdicts: dict[str, int] = {}
    for number, row in enumerate(ROWS):
        if row.meta["kind"] == "coaching":
            continue
        athlete, today = stored(memory, number // 4, row)
        model = Scripted(row.answer)
        coach = HybridCoach(memory, model)
        _, *texts = [part.partition("\n")[2] for part in row.prompt[-1].parts]
        asked = coach.modify if row.meta["kind"] == "plan_modification" else coach.plan_week
        found = asked(athlete, *texts, today=today)
        assert tuple(model.asked[0]) == row.prompt
        assert encoder.prompt(model.asked[0]) == encoder.prompt(row.prompt)
        assert found.change.verdict in ("applied", "no_change"), found.change.reasons
        assert json.loads(found.answer) == json.loads(row.answer)
        verdicts[found.change.verdict] = verdicts.get(found.change.verdict, 0) + 1
    assert verdicts["applied"] > 30 and verdicts["no_change"] > 5


def test_the_context_of_a_question(memory: Database) -> None:
    rows = [(number, row) for number, row in enumerate(ROWS) if row.meta["kind"] == "coaching"]
    for number, row in rows:
        athlete, today = stored(memory, number // 4, row)
        with reading(memory) as book:
            assert told(book, athlete, today, "coaching").context == context_of(row)
    assert len(rows) > 5


def test_more_of_the_plan_is_judged_than_told(database: Database) -> None:
    number = add(database)
    with writing(database) as book:
        rest = Workout(0, TODAY + timedelta(2), "Rest day", "rest", 0, "rest", 0)
        far = Workout(0, TODAY + timedelta(14), "Far run", "running", 30, "easy", 22)
        before = book.workouts(number)
        book.put_plan(book.athlete(number, lock=True), before, [*before, rest, far])
    with reading(database) as book:
        seen = told(book, number, TODAY, "plan_modification")
        week = told(book, number, TODAY, "weekly_plan")
    assert [item.id for item in seen.context.upcoming_workouts] == ["w1", "w2", "w3"]
    assert seen.whole.upcoming_workouts == plan()  # neither the day of rest nor the workout two weeks ahead
    assert [item.name for item in seen.plan if item.sport == "rest"] == ["Rest day"]
    assert week.context.week_start == date(2026, 3, 9) and week.context.upcoming_workouts == []
    assert not [*wrong_in(seen.whole), *wrong_in(week.context)]


def test_what_happened_later_is_not_told(memory: Database) -> None:
    made = history(days=60)
    with writing(memory) as book:
        number = add_history(book, made, plan())
    for ago in (0, 1, 20, 40, 60):
        today = TODAY - timedelta(ago)
        with reading(memory) as book:
            seen = told(book, number, today, "weekly_plan").context
        assert seen.current_metrics == made.context(today, ()).current_metrics
        assert all(item.date < today for item in seen.recent_activities)
    with reading(memory) as book, pytest.raises(UserError, match=r"today=2026-01-02 is before the log of athlete 1"):
        told(book, number, TODAY - timedelta(61), "coaching")


def test_days_without_a_session_are_days_of_rest(memory: Database) -> None:
    number = add(memory)
    with reading(memory) as book:
        now, later = (told(book, number, TODAY + timedelta(days), "coaching").context for days in (0, 14))
    assert later.recent_activities == [] and later.current_metrics.weekly_tss == 0
    assert (later.current_metrics.form_tsb or 0) > (now.current_metrics.form_tsb or 0) + 20


def test_a_log_is_read_once(memory: Database, tmp_path: Path) -> None:
    first = list(read_histories(log_of(tmp_path, 30)))
    assert [getattr(item, "athlete", item).name for item in first] == ["Ben", "Ana"]
    with writing(memory) as book:
        numbers = [add_history(book, item, usual_plan(item, TODAY)) for item in first]  # type: ignore[arg-type]
        plans = [book.workouts(number) for number in numbers]
    assert all(len(found) >= 6 for found in plans)
    again = list(read_histories(log_of(tmp_path, 40)))
    with writing(memory) as book:
        added = [extend_log(book, *pair) for pair in zip(numbers, again, strict=True)]  # type: ignore[arg-type]
        assert added == [4, 5] and [extend_log(book, *pair) for pair in zip(numbers, again, strict=True)] == [0, 0]  # type: ignore[arg-type]
        assert [len(book.sessions(number)) for number in numbers] == [14, 20]
    said = "the log begins on 2026-01-06, that of athlete 3 on 2026-02-02"
    with pytest.raises(UserError, match=said), writing(memory) as book:
        extend_log(book, add_history(book, history(days=30), ()), again[1])  # type: ignore[arg-type]


def test_simulated_months_end_yesterday() -> None:
    made = simulate(random.Random(1))
    for today in (TODAY, TODAY + timedelta(3), made.last - timedelta(30)):
        moved = shifted(made, today)
        assert (moved.first - made.first).days % 7 == 0 and moved.last == today - timedelta(1)
        assert moved.last - timedelta(14) < max(item.date for item in moved.done) < today
        assert usual_plan(moved, today)
