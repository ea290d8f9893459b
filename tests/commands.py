"""Command lines as tests give them: composed here, or run as scripts in a folder of their own; what W&B kept of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fieldtune.composition import composed
from fieldtune.config import Config

ROOT = Path(__file__).resolve().parents[1]

# What makes a stage a matter of seconds: a GPT-2 of one layer and a few rows, no W&B.
TINY = (
    "data=jsonl",
    "data.path=mine.jsonl",
    "data.split=[0.6,0.2,0.2]",
    "model=gpt2_tiny",
    "model.layers=1",
    "model.heads=2",
    "model.width=8",
    "adapter=none",
    "trainer=fit",
    "trainer.micro_batch_size=4",
    "trainer.max_steps=2",
    "trainer.sample_tokens=3",
    "evaluation.bootstrap=100",
    "evaluation.max_new_tokens=3",
    "tracking=off",
    "name=tiny",
)


def write_rows(path: Path, count: int = 20, first: int = 0) -> Path:
    """Rows without near-duplicates, of varied length."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(first, first + count):
            subject = chr(ord("a") + number % 26) * (3 + number % 7)
            question = f"What is {number * 7919} of {subject}, in {number * 104729} words?"
            answer = f"It is {number * 611953}" + " or so" * (number % 5) + f", {subject}."
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def compose(stage: str, *words: str, conf: Path | None = None) -> Config:
    """The configuration of a command line, as the scripts compose and load it."""
    return composed(stage, list(words), conf)


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def script(folder: Path, stage: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A script run in `folder` with nothing on its standard input; more: environment variables."""
    return subprocess.run(
        [sys.executable, str(ROOT / f"{stage}.py"), *words],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def only_run(folder: Path) -> Path:
    """The one run folder under `outputs`."""
    (run,) = (path.parent for path in folder.glob("outputs/*/*/run.json"))
    return run


def offline_record(folder: Path) -> dict[str, Any]:
    """The newest offline W&B run of a run folder, by W&B's own reader: its state, config, summary and exit code."""
    record: dict[str, Any] = json.loads(_inspect(folder, "--summary", "--json"))
    return record


def offline_records(folder: Path) -> list[dict[str, Any]]:
    """Every record of that run."""
    return [json.loads(line) for line in _inspect(folder, "--json").splitlines() if line]


def offline_history(folder: Path) -> list[dict[str, Any]]:
    """What was logged in that run, a step an item."""
    return [record["history"]["item"] for record in offline_records(folder) if record["type"] == "history"]


def _inspect(folder: Path, *options: str) -> str:
    path = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda found: found.stat().st_mtime_ns)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
