"""A run that was cut off and started again ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fieldtune import runs
from fieldtune.tracking import NullTracker

from ..stages import ALLOCATOR, command, compose, lines_of, run_here, told, work_here
from .conftest import words

DROPOUT = (
    "model.dropout=0.1",
    "trainer.packing=none",
    "trainer.eval_every=4",
    "trainer.sample_rows=1",
    "trainer.sample_tokens=4",
)


def assert_same_result(one: Path, other: Path) -> None:
    assert told(one) == told(other)  # bit-equal, on the CPU
    assert lines_of(one / "samples.jsonl") == lines_of(other / "samples.jsonl")
    models = [load_file(folder / "model" / "model.safetensors") for folder in (one, other)]
    assert all((models[0][name] == value).all() for name, value in models[1].items())


@pytest.fixture(scope="module")
def whole(work: Path) -> runs.Run:
    """Not interrupted: 6 epochs of 3 steps, with dropout."""
    return run_here(work, "train", *words(work, *DROPOUT, "trainer.max_epochs=6"))


class Failing(NullTracker):
    """Fails while a step is told."""

    def __init__(self, at: int) -> None:
        self.at = at

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if step == self.at:
            raise ConnectionError("gone")


@pytest.mark.parametrize("at", [2, 6])
def test_a_run_that_failed_goes_on_from_its_last_checkpoint(work: Path, whole: runs.Run, at: int) -> None:
    """At step 2 there is no checkpoint yet, at 6 one is there."""
    from fieldtune.training.stage import train

    folder = work / f"failed-at-{at}"
    folder.mkdir()
    for name in (runs.CONFIG, runs.STARTED):
        shutil.copy(whole.folder / name, folder / name)
    config = compose(work, "train", *words(work, *DROPOUT, "trainer.max_epochs=6"))
    with pytest.raises(ConnectionError):
        train(config, folder, Failing(at))
    assert bool(list((folder / "checkpoints").glob("step-*"))) == (at > 2)
    work_here(folder)
    assert_same_result(folder, whole.folder)


def test_a_run_that_was_cut_off_while_saving_its_results(work: Path, whole: runs.Run) -> None:
    folder = work / "cut-while-saving"
    shutil.copytree(whole.folder, folder)
    (folder / runs.MANIFEST).unlink()
    shutil.rmtree(folder / "model")
    work_here(folder)
    assert_same_result(folder, whole.folder)
    assert runs.read_json(folder / runs.MANIFEST)["steps"]["done"] == 18


def test_a_run_that_stopped_early_does_not_go_on(work: Path) -> None:
    stop = ["trainer.eval_every=1", "trainer.patience=1", "trainer.learning_rate=0.05", "trainer.max_epochs=9"]
    whole = run_here(work, "train", *words(work, *stop))
    assert whole.manifest()["steps"]["stopped_early"]
    folder = work / "cut-after-stopping"
    shutil.copytree(whole.folder, folder)
    (folder / runs.MANIFEST).unlink()
    work_here(folder)
    assert told(folder) == told(whole.folder)
    steps = runs.read_json(folder / runs.MANIFEST)["steps"]
    assert steps == {**whole.manifest()["steps"], "attempts": 2}


def start(work: Path, folder: Path) -> subprocess.Popen[str]:
    places = [f"output_dir={work / 'outputs'}", f"dataset_dir={work / 'datasets'}", f"run_dir={folder}"]
    arguments = [*words(work, *DROPOUT, "trainer.max_epochs=6"), *places]
    return subprocess.Popen(
        command("train", *arguments),
        cwd=work,
        env={**os.environ, **ALLOCATOR},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_step(folder: Path, step: int) -> None:
    metrics = folder / "metrics.jsonl"
    for _ in range(6000):
        if metrics.exists() and len(metrics.read_text().splitlines()) > step:
            return
        time.sleep(0.01)
    raise AssertionError("the run did not get to its middle")


@pytest.mark.slow
def test_killed_and_interrupted_by_signals(work: Path, whole: runs.Run) -> None:
    folder = work / "killed"
    first = start(work, folder)
    wait_for_step(folder, 5)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    started = (folder / runs.STARTED).read_bytes()
    assert list((folder / "checkpoints").glob("step-*")) and not (folder / runs.MANIFEST).exists()
    assert runs.open_run(folder).status == "unfinished"
    steps = len(lines_of(folder / "metrics.jsonl"))

    second = start(work, folder)
    wait_for_step(folder, max(steps, 10))
    os.killpg(second.pid, signal.SIGINT)  # as Ctrl-C at a terminal does
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 130, output
    assert "Traceback" not in output
    assert runs.open_run(folder).status == "failed"
    assert str(runs.read_json(folder / runs.FAILURE)["reason"]).startswith("interrupted")

    third = start(work, folder)
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0 and "going on from" in output, output
    assert_same_result(folder, whole.folder)
    assert (folder / runs.STARTED).read_bytes() == started
    assert runs.open_run(folder).status == "finished"
    fourth = start(work, folder)
    assert "is finished; nothing to do" in fourth.communicate(timeout=60)[0]
