"""`python -m fieldtune.worker RUN_DIR`: does the stage that a composed run folder asks for."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fieldtune import runs, stopping, tracking
from fieldtune.config import Config, load
from fieldtune.errors import UserError

log = logging.getLogger("fieldtune")

# What the disk or the system refuses: a fault of neither the input nor the program.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)

Stage = Callable[[Config, Path, tracking.Tracker], Mapping[str, Any]]


def main(arguments: list[str]) -> int:
    """Do the work of one run folder; returns the exit status.

    0: done. 2: bad input. 1: a fault of the program or its environment. 130, 143, 138: asked to end by SIGINT, SIGTERM,
    SIGUSR1; what was done is saved.
    """
    if len(arguments) != 1:
        print("usage: python -m fieldtune.worker RUN_DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        run = runs.open_run(folder)
        with runs.locked(folder), stopping.handled():
            _log_to(folder)
            return _work(run)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _work(run: runs.Run) -> int:
    config = load(run.config())
    (run.folder / runs.FAILURE).unlink(missing_ok=True)
    log.info("%s %s in %s", run.stage, config.name, run.folder)
    started = time.monotonic()
    tracker: tracking.Tracker = tracking.NullTracker()
    try:
        tracker = tracking.start(config, run)
        facts = _stage(run.stage)(config, run.folder, tracker)
    except UserError as error:
        return _failed(run, tracker, str(error), error.exit_code)
    except SystemExit:
        return _interrupted(run, tracker)
    except OSError as error:
        return _refused(run, tracker, error) if error.errno in REFUSALS else _fault(run, tracker, error)
    except Exception as error:
        return _fault(run, tracker, error)
    manifest = {
        **run.started,
        "seconds": round(time.monotonic() - started, 2),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "config": run.config(),
        **facts,
    }
    tracker.finish(manifest)
    runs.write_json(run.folder / runs.MANIFEST, manifest)
    return 0


def _stage(name: str) -> Stage:
    """A stage's function, imported when it is wanted: prepare needs no torch."""
    if name == "prepare":
        from fieldtune.prepare.stage import prepare

        return prepare
    if name == "train":
        from fieldtune.training.stage import train

        return train
    from fieldtune.evaluation.stage import evaluate

    return evaluate


def _interrupted(run: runs.Run, tracker: tracking.Tracker) -> int:
    number = signal.Signals(stopping.asked() or signal.SIGTERM)
    reason = f"interrupted by {number.name}; go on with the same command and run_dir={run.folder}"
    status = _failed(run, tracker, reason, 128 + number)
    if number == signal.SIGUSR1:
        _requeue()
    return status


def _requeue() -> None:
    """Slurm's warning before the time limit: ask for the same job again. Its first process does, if there are more."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        refusal = (done.stderr or done.stdout).strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        refusal = str(error)
    if refusal:
        log.error("Slurm did not requeue job %s (%s); submit it again", job, refusal)
    else:
        log.info("Slurm will start job %s again", job)


def _refused(run: runs.Run, tracker: tracking.Tracker, error: OSError) -> int:
    """A full disk or a missing right, wherever it was met."""
    log.debug("%s", traceback.format_exc())
    free = shutil.disk_usage(run.folder).free / 1e6
    reason = f"{error.filename or run.folder}: {error.strerror} ({free:,.1f} MB are free in {run.folder})"
    return _failed(run, tracker, f"{reason}; mend it, then go on with the same command and run_dir={run.folder}", 1)


def _fault(run: runs.Run, tracker: tracking.Tracker, error: Exception) -> int:
    log.debug("%s", traceback.format_exc())
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return _failed(run, tracker, f"{line} (a fault of fieldtune's or its environment's; details in log.txt)", 1)


def _failed(run: runs.Run, tracker: tracking.Tracker, reason: str, status: int) -> int:
    log.error("%s", reason)
    with contextlib.suppress(OSError):  # the disk may be what failed
        runs.write_json(run.folder / runs.FAILURE, {"reason": reason, "status": status})
    tracker.fail(status)
    return status


def _log_to(folder: Path) -> None:
    """Our lines to the terminal; ours with their time, tracebacks and the libraries' warnings to log.txt."""
    file = logging.FileHandler(folder / runs.LOG, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    terminal.setLevel(logging.INFO)
    terminal.addFilter(lambda record: record.name.startswith("fieldtune"))
    logging.basicConfig(level=logging.INFO, handlers=[file, terminal], force=True)
    log.setLevel(logging.DEBUG)
    logging.raiseExceptions = False  # a reader that closed our output is no reason to stop, or to say so
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    for noisy in ("httpx", "httpcore", "matplotlib", "urllib3", "filelock", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    # The worker's own figures must not depend on what else runs: one process, flushed line by line.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
