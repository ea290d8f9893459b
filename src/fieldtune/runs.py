"""Run folders: made once, locked while a worker is in them, described by a manifest that is written last.

outputs/<date>/<time>-<name>/
  config.yaml      the resolved configuration
  run.json         what was started: id, stage, time, versions, git
  log.txt          everything the run said
  failure.json     why it stopped, if it failed
  manifest.json    written last: only a finished run has one
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fieldtune.errors import UserError

CONFIG, STARTED, LOG, FAILURE, MANIFEST = "config.yaml", "run.json", "log.txt", "failure.json", "manifest.json"
LOCK = ".lock"
STAGES = ("prepare", "train", "evaluate")
VERSIONS_OF = ("torch", "pytorch-lightning", "transformers", "peft", "tokenizers", "wandb", "numpy")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that we wrote; `UserError` if it is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def make_run_dir(output_dir: Path, name: str, now: datetime) -> Path:
    """A new folder `<date>/<time>-<name>`; launches of the same second get a number, by atomic mkdir."""
    day = output_dir / now.strftime("%Y-%m-%d")
    day.mkdir(parents=True, exist_ok=True)
    stem = f"{now.strftime('%H-%M-%S')}-{name}"
    for number in range(1, 10_000):
        folder = day / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise UserError(f"{day} holds 9,999 runs named {stem}; give another name=...")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder; `UserError` if another process does. The lock goes with the process, however it ends."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is in use by a running process; wait for it or give another run_dir=") from None
        yield


def is_running(folder: Path) -> bool:
    """Whether a process holds the run folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder):
            return False
    except UserError:
        return True


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read back."""

    folder: Path
    started: Mapping[str, Any]

    @property
    def stage(self) -> str:
        return str(self.started["stage"])

    @property
    def name(self) -> str:
        return str(self.started["name"])

    @property
    def status(self) -> str:
        """finished | running | failed | unfinished."""
        if (self.folder / MANIFEST).exists():
            return "finished"
        if is_running(self.folder):
            return "running"
        return "failed" if (self.folder / FAILURE).exists() else "unfinished"

    def config(self) -> dict[str, Any]:
        """The configuration as a plain mapping."""
        import yaml

        value = yaml.safe_load((self.folder / CONFIG).read_text(encoding="utf-8"))
        assert isinstance(value, dict)
        return value

    def manifest(self) -> dict[str, Any]:
        """What a finished run holds."""
        return read_json(self.folder / MANIFEST)


def open_run(folder: Path) -> Run:
    """Read a run folder; `UserError` if it is none."""
    if not (folder / STARTED).exists():
        raise UserError(f"{folder} is not a run folder (no {STARTED}); list them with: fieldtune runs list")
    return Run(folder, read_json(folder / STARTED))


def list_runs(output_dir: Path) -> list[Run]:
    """Every run under the output folder, oldest first."""
    return sorted(
        (open_run(path.parent) for path in output_dir.glob(f"*/*/{STARTED}")),
        key=lambda run: (str(run.started["created"]), str(run.folder)),
    )


def find_run(output_dir: Path, wanted: str, stage: str = "train") -> Run:
    """The run that `wanted` names: a folder, or `latest` for the newest finished one of a stage."""
    if wanted != "latest":
        run = open_run(Path(wanted))
    else:
        finished = [run for run in list_runs(output_dir) if run.stage == stage and run.status == "finished"]
        if not finished:
            raise UserError(f"no finished {stage} run in {output_dir}; run {stage}.py first")
        run = finished[-1]
    if run.stage != stage:
        raise UserError(f"{run.folder} is a {run.stage} run; give a {stage} run (fieldtune runs list)")
    if run.status != "finished":
        raise UserError(f"{run.folder} is {run.status}; finish it with: python {stage}.py run_dir={run.folder} ...")
    return run


def started_record(stage: str, name: str, now: datetime) -> dict[str, Any]:
    """What is known when a run starts."""
    return {
        "id": secrets.token_hex(4),  # also the W&B run's
        "stage": stage,
        "name": name,
        "created": now.astimezone().isoformat(timespec="microseconds"),
        "command": sys.argv,
        "git": git_state(Path.cwd()),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers, without importing them."""
    found = {"python": platform.python_version()}
    for package in ("fieldtune", *VERSIONS_OF):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and whether tracked files were changed; empty outside a repository or without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=10)
    return done.stdout.strip()
