"""`python -m fieldtune.worker RUN_DIR`: does the stage that a composed run folder asks for."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from fieldtune import ranks, runs, tracking
from fieldtune.config import Accelerator, Config, load
from fieldtune.errors import UserError

log = logging.getLogger("fieldtune")

# A shell's statuses for a process that a signal ended.
SIGINT_STATUS, SIGTERM_STATUS = 128 + signal.SIGINT, 128 + signal.SIGTERM

NEIGHBOR_SECONDS = 1.0  # that a rank waits with a fault which may be another rank's

Stage = Callable[[Config, Path, tracking.Tracker], Mapping[str, Any]]


def main(arguments: list[str]) -> int:
    """Do the work of one run folder; returns the exit status (0 done, 2 bad input, 1 a fault of ours)."""
    if len(arguments) != 1:
        print("usage: python -m fieldtune.worker RUN_DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    # An asked-for end is an interruption like Ctrl-C: the run says so, and nothing half-made stays behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(SIGTERM_STATUS))
    try:
        run, rank = runs.open_run(folder), ranks.this_rank()
        # Rank 0 holds the folder for all of them.
        with runs.locked(folder) if rank.writes else nullcontext():
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
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the one into the other
        status = SIGTERM_STATUS if getattr(stop, "code", None) == SIGTERM_STATUS else SIGINT_STATUS
        return _failed(run, rank, tracker, f"interrupted; go on with run_dir={run.folder}", status)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        reason = f"{line} (a fault of fieldtune's or its environment's; details in {_log_name(rank)})"
        return _failed(run, rank, tracker, reason, 1)
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


def _failed(run: runs.Run, rank: ranks.Rank, tracker: tracking.Tracker, reason: str, status: int) -> int:
    if _is_first(run, rank, status):
        reason = reason if rank.writes else f"rank {rank.number}: {reason}"
        log.error("%s", reason)
        runs.write_json(run.folder / runs.FAILURE, {"reason": reason, "status": status})
    tracker.fail(status)
    return status


def _is_first(run: runs.Run, rank: ranks.Rank, status: int) -> bool:
    """Whether the reason of this rank is the one to tell: the first rank that fails takes the others with it."""
    if rank.world_size == 1:
        return True
    if status in (SIGINT_STATUS, SIGTERM_STATUS):
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
