"""`python -m fieldtune.worker RUN_DIR`: does the stage that a composed run folder asks for."""

from __future__ import annotations

import contextlib
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

from fieldtune import ranks, runs, stopping, tracking
from fieldtune.config import Accelerator, Config
from fieldtune.errors import REFUSALS, UserError
from fieldtune.loading import load

log = logging.getLogger("fieldtune")

NEIGHBOR_SECONDS = 1.0  # that a rank waits with a fault which may be another rank's

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
        run, rank = runs.open_run(folder), ranks.this_rank()
        # Rank 0 holds the folder for all of them.
        with runs.locked(folder) if rank.writes else contextlib.nullcontext(), stopping.handled():
            _log_to(folder, rank)
            return _work(run, rank)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _work(run: runs.Run, rank: ranks.Rank) -> int:
    config = load(run.config())
    if rank.writes:
        (run.folder / runs.FAILURE).unlink(missing_ok=True)
    log.info("%s %s in %s", run.stage, config.name, run.folder)
    if config.hardware.accelerator is Accelerator.cpu:  # where DeepSpeed is installed, others' imports make it look
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    started = time.monotonic()
    tracker: tracking.Tracker = tracking.NullTracker()
    try:
        if rank.writes:
            tracker = tracking.start(config, run)
        facts = _stage(run.stage)(config, run.folder, tracker)
    except UserError as error:
        return _failed(run, rank, tracker, str(error), error.exit_code)
    except SystemExit:
        return _interrupted(run, rank, tracker)
    except OSError as error:
        return (_refused if error.errno in REFUSALS else _fault)(run, rank, tracker, error)
    except Exception as error:
        return _fault(run, rank, tracker, error)
    if not rank.writes:
        return 0
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


def _interrupted(run: runs.Run, rank: ranks.Rank, tracker: tracking.Tracker) -> int:
    number = signal.Signals(stopping.asked() or signal.SIGTERM)
    reason = f"interrupted by {number.name}; go on with the same command and run_dir={run.folder}"
    status = _failed(run, rank, tracker, reason, 128 + number)
    if number == signal.SIGUSR1 and rank.writes:
        _requeue()
    return status


def _requeue() -> None:
    """Slurm's warning before the time limit: ask for the same job again."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
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


def _refused(run: runs.Run, rank: ranks.Rank, tracker: tracking.Tracker, error: OSError) -> int:
    """A full disk or a missing right, wherever it was met."""
    log.debug("%s", traceback.format_exc())
    free = shutil.disk_usage(run.folder).free / 1e6
    reason = f"{error.filename or run.folder}: {error.strerror} ({free:,.1f} MB are free in {run.folder})"
    return _failed(
        run, rank, tracker, f"{reason}; mend it, then go on with the same command and run_dir={run.folder}", 1
    )


def _fault(run: runs.Run, rank: ranks.Rank, tracker: tracking.Tracker, error: Exception) -> int:
    log.debug("%s", traceback.format_exc())
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return _failed(
        run, rank, tracker, f"{line} (a fault of fieldtune's or its environment's; details in {_log_name(rank)})", 1
    )


def _failed(run: runs.Run, rank: ranks.Rank, tracker: tracking.Tracker, reason: str, status: int) -> int:
    if _is_first(run, rank, status):
        reason = reason if rank.writes else f"rank {rank.number}: {reason}"
        log.error("%s", reason)
        with contextlib.suppress(OSError):  # the disk may be what failed
            runs.write_json(run.folder / runs.FAILURE, {"reason": reason, "status": status})
    tracker.fail(status)
    return status


def _is_first(run: runs.Run, rank: ranks.Rank, status: int) -> bool:
    """Whether the reason of this rank is the one to tell: the first rank that fails takes the others with it."""
    if rank.world_size == 1:
        return True
    if status - 128 in stopping.SIGNALS:
        return rank.writes and not (run.folder / runs.FAILURE).exists()
    # A fault may only be the lost connection to a rank that died; and what is wrong on all ranks, rank 0 tells.
    time.sleep(NEIGHBOR_SECONDS * ((status == 1) + (not rank.writes)))
    return not (run.folder / runs.FAILURE).exists()


def _log_name(rank: ranks.Rank) -> str:
    return runs.LOG if rank.writes else f"log-rank-{rank.number}.txt"


def _log_to(folder: Path, rank: ranks.Rank) -> None:
    """Our lines to the terminal; ours with their time, tracebacks and the libraries' warnings to log.txt.

    Ranks above 0 have a file of their own, and only their errors reach the terminal.
    """
    file = logging.FileHandler(folder / _log_name(rank), encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    terminal.setLevel(logging.INFO if rank.writes else logging.ERROR)
    terminal.addFilter(lambda record: record.name.startswith("fieldtune"))
    logging.basicConfig(level=logging.INFO, handlers=[file, terminal], force=True)
    log.setLevel(logging.DEBUG)
    logging.raiseExceptions = False  # a reader that closed our output is no reason to stop, or to say so
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    warnings.filterwarnings("ignore", module="torch.distributed")  # of names that DeepSpeed uses, at every step
    for noisy in ("httpx", "httpcore", "matplotlib", "urllib3", "filelock", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    # The worker's own figures must not depend on what else runs: one process, flushed line by line.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
