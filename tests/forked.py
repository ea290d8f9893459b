"""Ranks of a training run as forked children of the test's process: real workers that need not import torch again."""

from __future__ import annotations

import multiprocessing
import os
import sys
from datetime import datetime
from pathlib import Path

from fieldtune import ranks, runs, worker
from fieldtune.checks import check
from fieldtune.config import to_yaml
from fieldtune.errors import UserError

from .stages import compose


def train(folder: Path, *words: str, run_dir: Path | None = None) -> runs.Run:
    """A training run of several processes on this machine; a failure is a `UserError` of its reason."""
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
    for child in children:
        child.join(300)
        if child.is_alive():
            child.kill()
    if any(child.exitcode for child in children):
        raise UserError(str(runs.read_json(place / runs.FAILURE)["reason"]))
    return runs.open_run(place)


def _child(place: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with Path(os.devnull).open("w") as sink:
        sys.stdout = sys.stderr = sink
        os._exit(worker.main([str(place)]))
