"""Real attempts at a training run, killed at random moments.

`python -m tests.training.kills --kills 100` does it by hand and prints what happened.

Each attempt is `fieldtune.worker.main` in a process of its own, forked from a server that has imported torch and
Lightning, so that it starts in a second.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from fieldtune import runs
from fieldtune.config import to_yaml

from ..stages import compose, question_rows, run_here, told, write_rows

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["fieldtune.worker", "fieldtune.training.stage"])

EVERY = 3  # optimizer steps between checkpoints
SMALL = (
    "model=gpt2_tiny",
    "model.layers=1",
    "model.heads=2",
    "model.width=8",
    "model.dropout=0.1",
    "trainer.packing=none",
    "adapter=none",
)
TRAINED = (
    *("tracking=off", "hardware.threads=1", "trainer=fit", "trainer.micro_batch_size=5", "trainer.accumulation=2"),
    *("trainer.learning_rate=1e-3", "trainer.eval_every=5", "trainer.sample_rows=1", "trainer.sample_tokens=2"),
    *(f"trainer.checkpoint_every={EVERY}", "trainer.keep_checkpoints=2"),
)


def prepared(work: Path) -> Path:
    """A folder with a data set of 30 / 6 / 4 rows: 3 optimizer steps an epoch."""
    write_rows(work / "rows.jsonl", question_rows(40))
    run_here(work, "prepare", *data_words(work))
    return work


def data_words(work: Path) -> list[str]:
    return ["data=jsonl", f"data.path={work / 'rows.jsonl'}", "data.split=[0.75,0.15,0.1]", *SMALL, *TRAINED]


def new_run(work: Path, folder: Path, *words: str) -> Path:
    """A run folder as the launcher makes it."""
    config = compose(work, "train", *data_words(work), *words)
    folder.mkdir(parents=True)
    runs.write_text(folder / runs.CONFIG, to_yaml(config))
    runs.write_json(folder / runs.STARTED, runs.started_record("train", config.name, datetime.now()))
    return folder


def _attempt(folder: str, file_limit: int | None, powerless: bool) -> None:
    from fieldtune import worker

    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if powerless:
        _drop_capabilities()
    sys.exit(worker.main([folder]))


def _drop_capabilities() -> None:
    """Root without its powers: file modes count for it too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def start(folder: Path, *, file_limit: int | None = None, powerless: bool = False) -> ForkServerProcess:
    """An attempt at a run. file_limit: bytes that a file may have. powerless: without root's capabilities."""
    process = SERVER.Process(target=_attempt, args=(str(folder), file_limit, powerless))
    process.start()
    return process


def status_of(process: ForkServerProcess) -> int:
    """The exit status when the attempt has ended; minus the signal that killed it."""
    process.join(1800)
    assert process.exitcode is not None, "the attempt does not end"
    return process.exitcode


def finish(folder: Path) -> runs.Run:
    """An attempt that is left alone and must end well."""
    status = status_of(start(folder))
    assert status == 0, (folder / runs.LOG).read_text(encoding="utf-8")[-3000:]
    return runs.open_run(folder)


def begun(folder: Path) -> tuple[int, int]:
    """Attempts so far, and the last optimizer step that the newest one has begun."""
    try:
        lines = (folder / "attempts.jsonl").read_text().splitlines()
        return len(lines), int(json.loads(lines[-1])["to"]) if lines else 0
    except (FileNotFoundError, json.JSONDecodeError):
        return 0, 0


def wait_until(process: ForkServerProcess, condition: Callable[[], bool]) -> bool:
    """Whether it came before the process ended."""
    while process.is_alive():
        if condition():
            return True
        time.sleep(0.0005)
    return False


def kill_while_writing(process: ForkServerProcess, folder: Path) -> bool:
    """SIGKILL while a checkpoint is half-written: the process is stopped first, to look."""
    half = (folder / "checkpoints").glob
    while wait_until(process, lambda: any(half(".step-*.tmp"))):
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        while process.is_alive() and state_of(process.pid) not in "TZ":
            time.sleep(0.0005)
        if any(path for path in half(".step-*.tmp") if ".gone" not in path.name):
            process.kill()
            return status_of(process) == -signal.SIGKILL
        os.kill(process.pid, signal.SIGCONT)
    return False


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@dataclass
class Survival:
    """What became of a run that was killed again and again."""

    folder: Path
    kills: Counter[str]
    half_written: int  # kills that left an unfinished checkpoint
    steps: dict[str, Any]  # of the manifest


def kill_and_finish(folder: Path, kills: int, seed: int) -> Survival:
    """Kill attempts at a run at `kills` random moments, then let it end."""
    moments, done, half_written = random.Random(seed), Counter[str](), 0
    for _ in range(kills):
        kind = moments.choice(["any time", "in a step", "in a step", "in a write"])
        process, before = start(folder), begun(folder)[0]
        if kind == "any time":
            process.join(moments.uniform(0.0, 1.5))
            process.kill()
        elif kind == "in a step":
            wait_until(process, lambda before=before: begun(folder)[0] > before)
            wanted = begun(folder)[1] + moments.randint(1, 7)
            wait_until(process, lambda wanted=wanted: begun(folder)[1] >= wanted)
            time.sleep(moments.uniform(0.0, 0.02))
            process.kill()
        else:
            wait_until(process, lambda before=before: begun(folder)[0] > before)
            kill_while_writing(process, folder)
        assert status_of(process) == -signal.SIGKILL, f"the run ended before kill {done.total() + 1}"
        done[kind] += 1
        half_written += any(p for p in folder.glob("checkpoints/.step-*.tmp") if ".gone" not in p.name)
    return Survival(folder, done, half_written, finish(folder).manifest()["steps"])


def assert_same_run(one: Path, other: Path, steps: int) -> None:
    """Bit-equal losses, each step told once, equal samples, best weights and results; as many rows seen."""
    assert [line["step"] for line in told(one)] == list(range(steps + 1))
    assert told(one) == told(other)
    assert (one / "samples.jsonl").read_bytes() == (other / "samples.jsonl").read_bytes()
    for name in ("model/model.safetensors", "checkpoints/best.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = (runs.read_json(folder / runs.MANIFEST)["steps"] for folder in (one, other))
    for key in ("planned", "done", "kept", "tokens", "stopped_early"):
        assert first[key] == second[key], key


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Kill a training run at random moments and compare it with a whole one."
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    work, epochs = Path(tempfile.mkdtemp()), 3 * options.kills
    try:
        prepared(work)
        began = time.monotonic()
        whole = new_run(work, work / "whole", f"trainer.max_epochs={epochs}")
        finish(whole)
        killed = new_run(work, work / "killed", f"trainer.max_epochs={epochs}")
        survival = kill_and_finish(killed, options.kills, options.seed)
        assert_same_run(killed, whole, 3 * epochs)
        print(
            f"kills: {survival.kills.total()} {dict(survival.kills)}, {survival.half_written} left a half-written one"
        )
        print(f"steps: {survival.steps}")
        allowed = survival.steps["planned"] + options.kills * EVERY
        print(f"optimizer steps executed: {survival.steps['executed']} of {allowed} allowed")
        print(f"metrics, samples, best weights and result are those of the whole run; {time.monotonic() - began:.0f} s")
        assert survival.steps["executed"] <= allowed
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
