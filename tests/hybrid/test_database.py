"""Tables and transactions, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from fieldtune.errors import UserError
from fieldtune.store.database import Database, Unusable, migrations, open_database
from fieldtune.store.fitness import Change, NotThere, Workout, reading, writing
from fieldtune.store.tables import Base
from tests.hybrid.athletes import TODAY, add, plan_of

Opened = Callable[[str], Database]


def tables(database: Database) -> set[str]:
    with database.reading() as session:
        return set(inspect(session.connection()).get_table_names())


def test_migrations_make_the_tables_of_the_models_and_take_them_away(url: str, opened: Opened) -> None:
    database = opened(url)
    assert database.revision() is None
    database.migrate()
    database.migrate()  # nothing to do
    assert tables(database) == {*Base.metadata.tables, "alembic_version"}
    with database.reading() as session:
        command.check(migrations(session.connection()))  # raises if a model has what the tables have not
        made = {
            (table, item["name"])
            for table in Base.metadata.tables
            for item in inspect(session.connection()).get_check_constraints(table)
        }
    assert {("fitness_workouts", f"ck_fitness_workouts_{name}") for name in ("work", "rests", "tss")} < made
    database.must_be_current()
    add(database)
    database.migrate("base")
    assert tables(database) == {"alembic_version"}
    with pytest.raises(UserError, match=r"has no tables yet, 0001 is needed; give: fieldtune fitness migrate"):
        database.must_be_current()


def test_two_migrations_at_once(url: str, opened: Opened) -> None:
    work = [threading.Thread(target=opened(url).migrate) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    opened(url).must_be_current()


@pytest.mark.parametrize(
    "values",
    [
        "'running', 0, 'easy', 0",
        "'running', 481, 'easy', 40",
        "'running', 30, 'easy', 0",
        "'running', 480, 'easy', 501",
        "'rest', 30, 'rest', 20",
        "'rest', 0, 'easy', 0",
        "'running', 30, 'rest', 20",
    ],
)
def test_the_database_itself_refuses_what_is_no_workout(database: Database, values: str) -> None:
    number, into = (
        add(database),
        "INSERT INTO fitness_workouts (athlete_id, date, name, sport, minutes, intensity, tss)",
    )
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(text(f"{into} VALUES ({number}, '2026-03-05', 'x', {values})"))
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(text(f"{into} VALUES ({number + 1}, '2026-03-05', 'x', 'running', 30, 'easy', 20)"))


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    number = add(database)
    before = plan_of(database, number)
    with pytest.raises(NotThere), writing(database) as book:
        book.put_plan(book.athlete(number, lock=True), before, [])
        assert book.workouts(number) == []
        book.athlete(number + 1)
    assert plan_of(database, number) == before
    with reading(database) as book:
        assert book.athlete(number).version == 1


def test_rows_come_back_as_they_went_in(database: Database) -> None:
    number = add(database)
    steps = [{"step_type": "warmup", "duration_type": "time", "duration_value": 600.0, "target_type": "open"}]
    new = Workout(0, TODAY, "Läufe \N{RUNNER}", "running", 40, "easy", 30, "slow", "'; DROP TABLE x --", steps)
    with writing(database) as book:
        before = book.workouts(number)
        put = book.put_plan(book.athlete(number, lock=True), before, [*before, new])
        told = Change(number, "undo", TODAY, {"a": "\x00é"}, "refused", ["b"], ["{\x00"], before, put)
        record = book.record(told)
    assert plan_of(database, number) == put and put[0].name == new.name
    with reading(database) as book:
        found = book.change(record.id)
    assert (found.request, found.answers, found.before, found.after) == ({"a": "\x00é"}, ["{\x00"], before, put)
    assert abs((datetime.now(UTC) - found.at).total_seconds()) < 60


def test_an_id_is_not_given_twice(database: Database) -> None:
    number = add(database)
    with writing(database) as book:
        before = book.workouts(number)
        book.put_plan(book.athlete(number, lock=True), before, before[:-1])
    other = add(database)
    assert {item.id for item in plan_of(database, other)}.isdisjoint(item.id for item in before)


def test_where_a_database_may_be(tmp_path: Path) -> None:
    for where, said in (
        ("mysql://x/y", r"database=mysql://... is not supported; allowed: a file"),
        ("://", "database= is not a URL"),
        (str(tmp_path / "absent" / "x.db"), "there is no folder"),
    ):
        with pytest.raises(UserError, match=said):
            open_database(where)
    path = tmp_path / "x.db"
    with pytest.raises(UserError, match=r"x\.db is not a file; give: fieldtune fitness migrate database="):
        open_database(str(path)).must_be_current()
    assert not path.exists()
    path.write_text("no database at all, but a text that is long enough to be read as one" * 20)
    with pytest.raises(UserError, match="cannot be used"):
        open_database(str(path)).must_be_current()
    with pytest.raises(Unusable, match=r"database postgresql\+psycopg://me:\*\*\*@127\.0\.0\.1:9/x cannot be used"):
        open_database("postgresql://me:secret@127.0.0.1:9/x").revision()
