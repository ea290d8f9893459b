"""One way to start work: compose, check, make the run folder, start `python -m fieldtune.worker RUN_DIR`.

Everything that can be wrong with a configuration is found here, before torch is imported and before anything is
written. The worker is a process of its own, so that this one stays light.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from fieldtune.config import Config
    from fieldtune.runs import Run


LATEST = "latest"  # as run_dir: the newest unfinished run


def main(stage: str) -> NoReturn:
    """Run a stage (prepare, train, evaluate) with Hydra's command line; exits with the stage's status.

    0: done. 2: bad input, one line a problem on standard error. Otherwise the worker's own status.
    """
    from fieldtune.errors import UserError

    statuses: list[int] = []
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else hydra.main prints an error itself and exits with 1
    try:
        _compose_and_start(stage, statuses)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    # A sweep goes on after a failed job; its status is the worst of them.
    sys.exit(max(statuses, default=0))


def _compose_and_start(stage: str, statuses: list[int]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from fieldtune import composition
    from fieldtune.errors import UserError
    from fieldtune.loading import load

    composition.register_schemas()

    def start(composed: Any) -> None:
        settings = HydraConfig.get()
        multirun = settings.mode == RunMode.MULTIRUN
        try:
            with composition.explained(stage):
                config = load(composed)
            statuses.append(launch(stage, config, list(settings.overrides.task), multirun=multirun))
        except UserError as error:  # not raised through Hydra, which would print more and stop a sweep
            print(error, file=sys.stderr)
            statuses.append(error.exit_code)

    start.__module__ = "__main__"
    with composition.explained(stage):
        hydra.main(version_base="1.3", config_path=str(composition.conf_dir()), config_name=stage)(start)()


def launch(stage: str, config: Config, overrides: list[str], *, multirun: bool = False) -> int:
    """Check a configuration, make or reopen its run folder, run the worker in it; returns its exit status."""
    from fieldtune.checks import check
    from fieldtune.evaluated_run import adopt_run
    from fieldtune.ranks import environments, this_rank

    run: Run | None = None
    if stage == "evaluate":
        config, run = adopt_run(config, overrides)
    check(config, stage, multirun=multirun, run=run)
    folder = _open_folder(stage, config) if this_rank().writes else _folder_of_rank_zero(stage, config)
    if folder is None:
        return 0
    return start_workers(folder, environments(config.hardware) if stage == "train" else [{}])


def _folder_of_rank_zero(stage: str, config: Config) -> Path | None:
    """The run folder that the process of rank 0, started beside this one, opens; None if that run is finished."""
    from fieldtune import runs
    from fieldtune.errors import UserError

    assert config.run_dir is not None  # see checks
    folder = Path(config.run_dir)
    for _ in range(FOLDER_SECONDS * 10):
        if (folder / runs.STARTED).exists():
            return _reopen(stage, folder, config, shared=True)
        time.sleep(0.1)
    raise UserError(f"run_dir={folder}: rank 0 has not made it in {FOLDER_SECONDS} s; give a folder that all nodes see")


def _open_folder(stage: str, config: Config) -> Path | None:
    """A new run folder, or the given one if it can go on; None if that one is finished already."""
    from fieldtune import runs
    from fieldtune.config import to_yaml

    now = datetime.now()
    if config.run_dir == LATEST:
        return _reopen(stage, _latest(stage, config), config)
    if config.run_dir is None:
        name = config.name if stage == "train" else f"{config.name}-{stage}"
        folder = runs.make_run_dir(Path(config.output_dir), name, now)
    else:
        folder = Path(config.run_dir)
        if (folder / runs.STARTED).exists():
            return _reopen(stage, folder, config)
        folder.mkdir(parents=True, exist_ok=True)
    runs.write_text(folder / runs.CONFIG, to_yaml(config))
    runs.write_json(folder / runs.STARTED, runs.started_record(stage, config.name, now))
    return folder


def _latest(stage: str, config: Config) -> Path:
    """The newest unfinished run of this name and configuration; `UserError` if there is none, with what comes near."""
    from fieldtune import runs
    from fieldtune.errors import UserError
    from fieldtune.loading import load

    named = [run for run in runs.list_runs(Path(config.output_dir)) if (run.stage, run.name) == (stage, config.name)]
    near = ""
    for run in reversed([run for run in named if run.status != "finished"]):
        changed = _changes(load(run.config()), config)
        if not changed and run.status != "running":
            return run.folder
        why = "in use by a running process" if not changed else f"of another configuration: {'; '.join(changed)}"
        near = near or f" ({run.folder} is {why})"
    raise UserError(
        f"run_dir=latest: no unfinished {stage} run of {config.name} with this configuration in "
        f"{config.output_dir}{near}; leave run_dir= out to start one"
    )


def _reopen(stage: str, folder: Path, config: Config, *, shared: bool = False) -> Path | None:
    """A run folder that is there, if it can go on. shared: another process of the same run may hold it by now."""
    from fieldtune import runs
    from fieldtune.errors import ConfigError, UserError
    from fieldtune.loading import load

    run = runs.open_run(folder)
    if run.stage != stage:
        raise UserError(f"run_dir={folder} holds a {run.stage} run, not a {stage} run; give another run_dir=")
    changed = _changes(load(run.config()), config)
    if changed:
        raise ConfigError([f"run_dir={folder} was started with another configuration: {'; '.join(changed)}"])
    if run.status == "running" and not shared:
        raise UserError(f"run_dir={folder} is in use by a running process; wait for it or give another run_dir=")
    if run.status == "finished":
        if not shared:
            print(f"{folder} is finished; nothing to do")
        return None
    return folder


def _changes(before: Config, now: Config) -> list[str]:
    from fieldtune.config import to_mapping

    return [f"{key} was {old}, is {new}" for key, old, new in _differences(to_mapping(before), to_mapping(now))]


def _differences(before: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            item
            for name in sorted(before.keys() | now.keys())
            if not (key == "" and name == "run_dir")
            for item in _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if before == now else [(key, before, now)]


FOLDER_SECONDS = 120  # that a process waits for the run folder of rank 0
POLL_SECONDS = 0.05  # between two looks at several workers
GRACE_SECONDS = 15.0  # that a worker has to end after another one has failed
SAVING_SECONDS = 60.0  # the same after an interruption


# Tensors of some megabytes come and go at every step. glibc would map and unmap them, and the kernel clear each page
# anew; kept in the heap, in huge pages, a training step on the CPU takes about a quarter less time.
ALLOCATOR = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(100 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def start_workers(folder: Path, environments: Sequence[Mapping[str, str]] = ({},)) -> int:
    """Run the workers of a run folder to their end, one an item of what is added to their environment.

    A signal that asks to end is passed on. When the workers have ended, this process does too: a sweep does not go on.
    The exit status of the first that ended badly comes back; the others are ended then.
    """
    from fieldtune.stopping import SIGNALS

    asked: list[int] = []
    workers: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object = None) -> None:
        asked.append(number)
        for worker in workers:
            worker.send_signal(number)

    inherited = ALLOCATOR | {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    command = [sys.executable, "-m", "fieldtune.worker", str(folder)]
    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        for more in environments:
            workers.append(subprocess.Popen(command, env=inherited | dict(more)))
            for number in asked[:1]:  # it came while the worker was being made
                workers[-1].send_signal(number)
        number, status = _first_failure(workers)
        if status < 0 and "RANK" in environments[number]:
            _tell_of_death(folder, environments[number]["RANK"], -status)
        if asked or status - 128 in SIGNALS:  # asked to end, as the others were: one of them may still be saving
            _end(workers, SAVING_SECONDS)
        else:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            _end(workers, GRACE_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    status = 128 - status if status < 0 else status
    if asked:
        sys.exit(status or 128 + asked[0])
    return status


def _first_failure(workers: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Wait until a worker ends badly, or all end well; returns its number and status, or (0, 0)."""
    if len(workers) == 1:
        return 0, workers[0].wait()
    while True:
        statuses = [worker.poll() for worker in workers]
        for number, status in enumerate(statuses):
            if status:
                return number, status
        if None not in statuses:
            return 0, 0
        time.sleep(POLL_SECONDS)


def _tell_of_death(folder: Path, rank: str, number: int) -> None:
    """A worker that a signal ended could not say so itself; the others wait a moment before they blame the network."""
    from fieldtune import runs

    if number in (signal.SIGTERM, signal.SIGINT) or (folder / runs.FAILURE).exists():
        return
    reason = (
        f"rank {rank} was ended by {signal.Signals(number).name} (out of memory, if it was not you); "
        f"go on with run_dir={folder}"
    )
    print(reason, file=sys.stderr)
    runs.write_json(folder / runs.FAILURE, {"reason": reason, "status": 128 + number})


def _end(workers: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait for workers that were asked to end; one that waits for a dead neighbor does not hear it."""
    deadline = time.monotonic() + seconds
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
