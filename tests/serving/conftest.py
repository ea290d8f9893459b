"""A finished run that is made once, and the fieldtune command on it as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fieldtune.runs import Run, find_run

from ..commands import write_rows
from ..end_to_end.conftest import made_once
from ..models.byte_model import save_byte_model
from ..stages import run_here

CONTEXT = 1024


def make_noise_run(folder: Path, positions: int, *data: str) -> None:
    """An adapter of one step on a model whose tokens are bytes. It says noise. data: words of its data set and more."""
    (folder / "bytes").mkdir()
    save_byte_model(folder / "bytes", positions=positions)
    words = (
        "data.split=[0.6,0.2,0.2]",
        "model=smollm2_135m",
        f"model.weights=folder:{folder / 'bytes'}",
        "adapter=lora",
        "trainer=fit",
        "trainer.max_steps=1",
        "trainer.sample_rows=0",
        "tracking=off",
        "hardware.threads=1",
        "name=tiny",
        *data,
    )
    run_here(folder, "prepare", *words)
    run_here(folder, "train", *words)


def _make_run(folder: Path) -> None:
    mine = ("data=jsonl", f"data.path={write_rows(folder / 'mine.jsonl')}", f"model.context_length={CONTEXT}")
    make_noise_run(folder, 2 * CONTEXT, *mine)


@pytest.fixture(scope="session")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return find_run(made_once(tmp_path_factory, "chat-run", _make_run) / "outputs", "latest")


def started(*words: str, **environment: str) -> subprocess.Popen[bytes]:
    """The fieldtune command, with pipes. It listens to Ctrl-C, also where these tests run in the background."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "fieldtune.cli", *words],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@dataclass(frozen=True)
class Served:
    """A server and where it listens, without `/v1`."""

    process: subprocess.Popen[bytes]
    url: str


@contextmanager
def serving(run: Run, *words: str, key: str = "") -> Iterator[Served]:
    """A server on a free port, killed at the end if it still runs."""
    process = started("serve", f"run={run.folder}", "port=0", *words, FIELDTUNE_API_KEY=key)
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline().decode()
        found = re.search(r"^tiny\S* is served at (http://\S+)/v1 ", line)
        assert found, line + process.stderr.read().decode()
        yield Served(process, found[1].replace("0.0.0.0", "127.0.0.1"))
    finally:
        process.kill()
        process.communicate()
