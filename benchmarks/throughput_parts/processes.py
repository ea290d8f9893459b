"""A contender in a fresh process, with the allocator's settings that fieldtune gives its own workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from fieldtune.config import Precision
from fieldtune.launch import ALLOCATOR

from .job import Job
from .machine import memory

POLL = 0.5  # seconds between looks at a process's memory, for when it does not live to say so itself
OUT_OF_MEMORY = {-signal.SIGKILL: " (out of memory?)"}
HERE = Path(__file__).resolve().parents[1]


def run(job: Job, folder: Path) -> dict[str, Any]:
    """What the contender printed, or {"error": why there is nothing}."""
    path = folder / "job.json"
    job.write(path)
    return _printed(str(path))


def measure_matrix_rate(precision: Precision) -> dict[str, float]:
    """Floating-point operations a second by shape; empty if the process failed."""
    rates: dict[str, float] = _printed(precision.value).get("rates", {})
    return rates


def _printed(argument: str) -> dict[str, Any]:
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "throughput_parts.contender", argument],
        env={**os.environ, **ALLOCATOR, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0
    try:
        while True:
            try:
                out, err = process.communicate(timeout=POLL)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, _peak(process.pid))
    finally:
        process.kill()  # an interrupted benchmark leaves nobody behind
    lines = out.strip().splitlines()
    if process.returncode == 0 and lines:
        result: dict[str, Any] = json.loads(lines[-1])
        return result
    said = [line for line in (err + out).splitlines() if line.strip()]
    reason = said[-1] if said else f"ended with status {process.returncode}"
    if process.returncode < 0:
        reason = f"ended by signal {-process.returncode} with {peak / 1e9:.1f} GB" + OUT_OF_MEMORY.get(
            process.returncode, ""
        )
    return {"error": reason, "output": "\n".join(said[-30:]), "peak_seen": peak}


def _peak(pid: int) -> int:
    """The most bytes that a process had; 0 if it is gone."""
    try:
        return memory("VmHWM", pid)
    except (OSError, RuntimeError):
        return 0
