"""One golf run from data to report that many tests look at, made once even where several processes run the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from fieldtune.runs import Run, find_run, open_run

from ..stages import succeed

GOLF = ("experiment=golf_gpt2", "model=gpt2_tiny", "tracking=off", "data.count=60", "data.split=[0.35,0.35,0.3]")
TRAINING = (
    "trainer.micro_batch_size=4",
    "trainer.accumulation=2",
    "trainer.learning_rate=3e-3",
    "trainer.eval_every=2",
    "trainer.eval_rows=3",
    "trainer.sample_rows=2",
    "trainer.sample_tokens=12",
    "hardware.threads=1",
)
MEASURED = ("tracking=off", "evaluation.max_new_tokens=12", "evaluation.rows=6", "hardware.threads=1")


@dataclass(frozen=True)
class Golf:
    """folder: where the commands ran. dataset, train and evaluation: what they left."""

    folder: Path
    dataset: Path
    train: Run
    evaluation: Run


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process makes and the others wait for."""
    base = factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    folder = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not (folder / "made").exists():
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


def _make_golf(folder: Path) -> None:
    succeed(folder, "prepare", *GOLF)
    succeed(folder, "train", *GOLF, *TRAINING, "evaluation.max_new_tokens=12")
    succeed(folder, "evaluate", "run=latest", *MEASURED)


@pytest.fixture(scope="session")
def golf(tmp_path_factory: pytest.TempPathFactory) -> Golf:
    folder = made_once(tmp_path_factory, "golf", _make_golf)
    train = find_run(folder / "outputs", "latest")
    evaluation = next(open_run(path) for path in sorted((folder / "outputs").glob("*/*-golf_gpt2-evaluate")))
    return Golf(folder, folder / train.manifest()["data"]["folder"], train, evaluation)
