"""Databases to test on: SQLite in memory and in a file, and a PostgreSQL of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the store's packages are not installed")

import psycopg

from fieldtune.store.database import Database, open_database
from tests.serving.conftest import chat_run as chat_run

NUMBERS = count()


class Cluster:
    """A PostgreSQL that listens on a socket in its own folder. It refuses root, so root starts it as somebody else."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(folder, "postgres", "postgres")

    def start(self) -> None:
        self._do("initdb", "-A", "trust", "-U", "fieldtune", "--no-sync", "-E", "UTF8", "--locale=C")
        options = f"-c listen_addresses='' -c fsync=off -k {self._folder}"
        self._do("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._do("pg_ctl", "-m", "immediate", "stop")

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test{next(NUMBERS)}"
        with psycopg.connect(host=str(self._folder), user="fieldtune", dbname="postgres", autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://fieldtune@/{name}?host={self._folder}"

    def _do(self, program: str, *words: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *words]
        # Not a pipe: the server would inherit it, and we would wait for its end.
        subprocess.run(command, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, timeout=120, **self._as)  # type: ignore[call-overload]


def _binaries() -> Path | None:
    """Where initdb is: on PATH, or where Debian puts it."""
    there = shutil.which("initdb")
    found = [Path(there).resolve()] if there else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    binaries = _binaries()
    if binaries is None:
        reason = "there is no PostgreSQL server here: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="fieldtune-pg-", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(binaries, Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind, that several processes can open."""
    if request.param == "sqlite":
        return str(tmp_path / "coach.db")
    cluster: Cluster = request.getfixturevalue("postgresql")
    return cluster.new_database()


@pytest.fixture
def opened() -> Iterator[Callable[[str], Database]]:
    """Opens databases, and closes them when the test is over."""
    found: list[Database] = []

    def open_one(where: str) -> Database:
        found.append(open_database(where))
        return found[-1]

    yield open_one
    for database in found:
        database.close()


@pytest.fixture
def database(url: str, opened: Callable[[str], Database]) -> Database:
    """A database of each kind with tables."""
    made = opened(url)
    made.migrate()
    return made


@pytest.fixture
def memory(opened: Callable[[str], Database]) -> Database:
    """A database in memory with tables."""
    made = opened("sqlite://")
    made.migrate()
    return made
