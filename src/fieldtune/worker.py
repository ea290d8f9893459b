"""`python -m fieldtune.worker RUN_DIR`: does the stage that a composed run folder asks for."""

from __future__ import annotations

import logging
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fieldtune import runs, tracking
from fieldtune.config import Config, load
from fieldtune.errors import UserError

log = logging.getLogger("fieldtune")

# A shell's statuses for a process that a signal ended.
SIGINT_STATUS, SIGTERM_STATUS = 128 + signal.SIGINT, 128 + signal.SIGTERM

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
        run = runs.open_run(folder)
        with runs.locked(folder):
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
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the one into the other
        status = SIGTERM_STATUS if getattr(stop, "code", None) == SIGTERM_STATUS else SIGINT_STATUS
        return _failed(run, tracker, f"interrupted; go on with run_dir={run.folder}", status)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return _failed(run, tracker, f"{line} (a fault of fieldtune's or its environment's; details in log.txt)", 1)
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


def _failed(run: runs.Run, tracker: tracking.Tracker, reason: str, status: int) -> int:
    log.error("%s", reason)
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
