"""Ranks of a training run as forked children of the test's process: real workers that need not import torch again."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from datetime import datetime
from pathlib import Path

from fieldtune import ranks, runs, worker
from fieldtune.checks import check
from fieldtune.config import to_yaml
from fieldtune.errors import UserError

from .stages import compose


def train(folder: Path, *words: str, run_dir: Path | None = None, kill_at: int | None = None) -> runs.Run:
    """A training run of several processes on this machine; a failure is a `UserError` of its reason.

    kill_at: all of them are killed once so many lines of metrics are there.
    """
    config = compose(folder, "train", *words)
    check(config, "train")
    now = datetime.now()
    place = run_dir or runs.make_run_dir(folder / "outputs", config.name, now)
    if not (place / runs.STARTED).exists():
        place.mkdir(exist_ok=True)
        runs.write_text(place / runs.CONFIG, to_yaml(config))
        runs.write_json(place / runs.STARTED, runs.started_record("train", config.name, now))
    start = multiprocessing.get_context("fork").Process
    children = [start(target=_child, args=(place, more)) for more in ranks.environments(config.hardware)]
    for child in children:
        child.start()
    while kill_at and any(child.is_alive() for child in children):
        metrics = place / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= kill_at:
            for child in children:
                child.kill()
        time.sleep(0.005)
    for child in children:
        child.join(1800)
        if child.is_alive():
            child.kill()
    if not kill_at and any(child.exitcode for child in children):
        raise UserError(str(runs.read_json(place / runs.FAILURE)["reason"]))
    return runs.open_run(place)


def _child(place: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with Path(os.devnull).open("w") as sink:
        sys.stdout = sys.stderr = sink
        os._exit(worker.main([str(place)]))
