"""A database by file or URL: transactions on SQLite and PostgreSQL, and the migrations that make its tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from fieldtune.errors import UserError

WAIT = 30  # seconds that a transaction waits for another's lock
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
MIGRATING = 7_326_001  # PostgreSQL's advisory lock: two migrations wait for each other


class Unusable(UserError):
    """The database does not answer, or another transaction does not let go."""


class Database:
    """See `open_database`. Its transactions are short: nothing waits for a model within one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees one state of the database."""
        level = {} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._told(), Session(self._engine.execution_options(**level)) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is kept whole or not at all.

        SQLite lets one at a time begin. On PostgreSQL whoever writes locks first what the change rests on.
        """
        with (
            self._told(),
            Session(self._engine.execution_options(writes=True), expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def migrate(self, to: str = "head") -> None:
        """Make or bring the tables up to a revision; `base` takes them away with all they hold."""
        with self._told(), self._engine.execution_options(writes=True).begin() as connection:
            if not self._is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
            (command.downgrade if to == "base" else command.upgrade)(migrations(connection), to)

    def revision(self) -> str | None:
        """The revision of the tables; None without any."""
        with self._told(), self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def must_be_current(self) -> Database:
        """Itself; `UserError` if there is no such file, or its tables are not those of this version."""
        path = self._engine.url.database
        if self._is_sqlite and path not in (None, "", ":memory:") and not Path(str(path)).is_file():
            raise UserError(f"database={path} is not a file; give: fieldtune fitness migrate database={path}")
        found, wanted = self.revision(), ScriptDirectory.from_config(migrations()).get_current_head()
        if found != wanted:
            given = f"tables of revision {found}" if found else "no tables yet"
            raise UserError(
                f"database {self.name} has {given}, {wanted} is needed; give: fieldtune fitness migrate database=..."
            )
        return self

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """One clear line for a server that is not there or a lock that is not given up."""
        try:
            yield
        except DBAPIError as error:
            if type(error) in (OperationalError, DatabaseError):  # not what a statement got wrong
                reason = " ".join(str(error.orig).split())[:200]
                raise Unusable(f"database {self.name} cannot be used ({reason}); see that it is there") from error
            raise


def migrations(connection: Connection | None = None) -> Config:
    """Alembic's configuration of our migrations, to be run on a connection."""
    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def open_database(where: str) -> Database:
    """The database at a file's path or a URL (`sqlite:///FILE`, `postgresql://USER@HOST/NAME`); nothing is made.

    `sqlite://` is one in memory. `UserError` for another kind of URL. Passwords need not stand in a URL: PostgreSQL's
    PGPASSWORD and ~/.pgpass are read.
    """
    url = _url(where)
    if url.get_backend_name() != "sqlite":
        wait = {"options": f"-c lock_timeout={WAIT * 1000}", "connect_timeout": WAIT}
        return Database(create_engine(url, connect_args=wait, pool_pre_ping=True))
    in_memory = url.database in (None, "", ":memory:")
    # A database in memory lives as long as its one connection.
    pool: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
    engine = create_engine(url, connect_args={"timeout": WAIT, "check_same_thread": False}, **pool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine)


def _url(where: str) -> URL:
    given = where if "://" in where else f"sqlite:///{where}"
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise UserError("database= is not a URL; give a file, or postgresql://USER@HOST/NAME") from None
    kind = url.drivername.partition("+")[0]
    if kind not in DRIVERS:
        raise UserError(f"database={kind}://... is not supported; allowed: a file, sqlite:///FILE, postgresql://...")
    folder = Path(url.database or "").parent
    if kind == "sqlite" and not folder.is_dir():
        raise UserError(f"database={where}: there is no folder {folder}; make it first")
    return url.set(drivername=DRIVERS[kind])


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own; `_begin_sqlite` does
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock before it reads, so that what it read is still so when it writes."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
