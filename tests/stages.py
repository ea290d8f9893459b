"""How the tests run stages: as a user does, in processes of their own, or here, to save the start of torch."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fieldtune import runs
from fieldtune.config import Config, to_yaml
from fieldtune.errors import UserError
from fieldtune.records import write_jsonl

from . import commands

# Big arrays come and go at every step; without these the C library asks the kernel for each of them anew.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
TINY = ("model=gpt2_tiny", "adapter=none", "tracking=off", "hardware.threads=1", "trainer.sample_rows=0")


def command(stage: str, *words: str) -> list[str]:
    return [sys.executable, str(commands.ROOT / f"{stage}.py"), *words]


def run_command(
    folder: Path, stage: str, *words: str, environment: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """prepare.py, train.py or evaluate.py from another folder; a variable of None is unset."""
    variables: dict[str, str | None] = {**os.environ, **ALLOCATOR, **(environment or {})}
    return subprocess.run(
        command(stage, *words),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
        env={name: value for name, value in variables.items() if value is not None},
    )


def succeed(folder: Path, stage: str, *words: str, environment: Mapping[str, str | None] | None = None) -> str:
    """Standard output of a command that must end well."""
    done = run_command(folder, stage, *words, environment=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def compose(folder: Path, stage: str, *words: str) -> Config:
    """The configuration of a command line, with its outputs and data sets under `folder`."""
    return commands.compose(stage, f"output_dir={folder / 'outputs'}", f"dataset_dir={folder / 'datasets'}", *words)


def run_here(folder: Path, stage: str, *words: str, run_dir: Path | None = None) -> runs.Run:
    """A stage in this process: checked, then done by the worker. Its failure is a `UserError` or RuntimeError."""
    from fieldtune.checks import check
    from fieldtune.evaluated_run import adopt_run

    config, run = compose(folder, stage, *words), None
    if stage == "evaluate":
        config, run = adopt_run(config, list(words))
    check(config, stage, run=run)
    if run_dir is None or not run_dir.exists():
        now = datetime.now()
        run_dir = runs.make_run_dir(folder / "outputs", f"{config.name}-{stage}", now)
        runs.write_text(run_dir / runs.CONFIG, to_yaml(config))
        runs.write_json(run_dir / runs.STARTED, runs.started_record(stage, config.name, now))
    return work_here(run_dir)


def work_here(run_dir: Path) -> runs.Run:
    """The worker's work on a run folder, in this process; the log goes to log.txt only in the end."""
    from fieldtune import worker

    root = logging.getLogger()
    before, on_termination = (root.level, list(root.handlers)), signal.getsignal(signal.SIGTERM)
    try:
        status = worker.main([str(run_dir)])
    finally:
        signal.signal(signal.SIGTERM, on_termination)
        logging.captureWarnings(False)
        for handler in set(root.handlers) - set(before[1]):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(before[0])
        root.handlers[:] = before[1]
    if status:
        reason = str(runs.read_json(run_dir / runs.FAILURE)["reason"])
        assert "\n" not in reason
        raise UserError(reason) if status == 2 else RuntimeError(reason)
    return runs.open_run(run_dir)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def curve(run: runs.Run | Path, name: str) -> dict[int, float]:
    """Values of a metric by optimizer step."""
    folder = run if isinstance(run, Path) else run.folder
    return {line["step"]: line[name] for line in lines_of(folder / "metrics.jsonl") if name in line}


FIRST = ["amber", "birch", "cedar", "delta", "ember", "frost", "grove", "heron", "inlet", "jasper"]
SECOND = ["quarry", "river", "summit", "timber", "upland", "valley", "willow", "yonder", "zenith", "meadow"]
THINGS = [
    "engine",
    "ladder",
    "mirror",
    "needle",
    "orchid",
    "pencil",
    "rocket",
    "saddle",
    "tunnel",
    "violin",
    "wallet",
    "anchor",
    "basket",
    "candle",
]


def question_rows(count: int) -> list[dict[str, Any]]:
    """Chat rows of short questions on invented facts, no two of them near-duplicates."""
    rows = []
    for number in range(count):
        a, b = FIRST[number % 10], SECOND[(number // 10 + number) % 10]
        c, d = THINGS[number % 14], THINGS[(number * 5 + number // 14 + 3) % 14]
        question = f"Which {c} of {a} {b} number {number} did team {number * 7 + 3} bring?"
        answer = f"It was {a} {d} {number * 13 + 11} from {b} {number * 3 + 2}."
        rows.append({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    write_jsonl(path, rows)
    return path


TIMED = ("train/tokens_per_second", "train/data_wait")


def told(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = lines_of(folder / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMED} for line in lines]
