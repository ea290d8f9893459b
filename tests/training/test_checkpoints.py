"""Checkpoints: whole or not there, damaged ones are passed over, the disk's refusals are one line, signals save."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldtune import runs
from fieldtune.training.attempts import Attempts

from ..malicious import Malicious
from ..stages import told
from . import kills

STEPS = 12


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kills.prepared(tmp_path_factory.mktemp("checkpoints"))


def made(work: Path, name: str, *words: str) -> Path:
    return kills.new_run(work, work / name, "trainer.max_epochs=4", *words)


@pytest.fixture(scope="module")
def whole(work: Path) -> Path:
    """12 steps, not interrupted."""
    return kills.finish(made(work, "whole")).folder


@pytest.fixture(scope="module")
def cut_off(work: Path, whole: Path) -> Path:
    """The same run, killed after step 9: its checkpoints are those of steps 6 and 9."""
    folder = made(work, "cut-off")
    process = kills.start(folder)
    kills.wait_until(process, lambda: list(folder.glob("checkpoints/step-*"))[2:] == [] and kills.begun(folder)[1] > 9)
    process.kill()
    kills.status_of(process)
    return folder


@pytest.fixture
def cut(cut_off: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(cut_off, tmp_path / "cut"))


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def log_of(folder: Path) -> str:
    return (folder / runs.LOG).read_text(encoding="utf-8")


def failure(folder: Path) -> str:
    """Why an attempt failed: one line, no traceback where a person looks."""
    reason = str(runs.read_json(folder / runs.FAILURE)["reason"])
    assert "\n" not in reason
    return reason


# --- what is there ----------------------------------------------------------------------------------------------


def test_a_checkpoint_says_what_it_holds(whole: Path) -> None:
    assert checkpoints(whole) == ["best.safetensors", "step-00000009", "step-00000012"]
    for folder in sorted(whole.glob("checkpoints/step-*")):
        marker = json.loads((folder / "complete.json").read_text())
        assert marker["step"] == int(folder.name[-8:])
        files = {path.name for path in folder.iterdir()} - {"complete.json"}
        assert files == marker["files"].keys() == {"state.ckpt", "best.safetensors"}
        for name, facts in marker["files"].items():
            content = (folder / name).read_bytes()
            assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    best = whole / "checkpoints" / "best.safetensors"
    assert best.samefile(whole / "checkpoints" / "step-00000012" / "best.safetensors")  # not a copy


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["trainer.checkpoint_every=5", "trainer.keep_checkpoints=9"], [5, 10, 12]),
        (["trainer.checkpoint_every=2", "trainer.keep_checkpoints=1"], [12]),
        (["trainer.checkpoint_every=null", "trainer.eval_every=4", "trainer.keep_checkpoints=9"], [4, 8, 12]),
    ],
)
def test_cadence_and_retention(work: Path, tmp_path: Path, words: list[str], kept: list[int]) -> None:
    folder = kills.new_run(work, tmp_path / "run", "trainer.max_epochs=4", *words)
    kills.finish(folder)
    assert checkpoints(folder) == ["best.safetensors", *(f"step-{step:08d}" for step in kept)]


# --- going on ---------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_passed_over(cut: Path, whole: Path) -> None:
    assert checkpoints(cut)[-2:] == ["step-00000006", "step-00000009"]
    state = cut / "checkpoints" / "step-00000009" / "state.ckpt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    steps = kills.finish(cut).manifest()["steps"]
    kills.assert_same_run(cut, whole, STEPS)
    log = log_of(cut)
    assert "step-00000009 is damaged (state.ckpt has another content than complete.json says)" in log
    assert f"going on from {cut}/checkpoints/step-00000006" in log
    assert steps["attempts"] == 2
    assert checkpoints(cut) == checkpoints(whole)


@pytest.mark.parametrize("name", ["complete.json", "state.ckpt", "best.safetensors"])
def test_a_missing_file_is_damage(cut: Path, name: str) -> None:
    (cut / "checkpoints" / "step-00000009" / name).unlink()
    kills.finish(cut)
    assert "step-00000009 is damaged" in log_of(cut) and "step-00000006\n" in log_of(cut)


def test_no_whole_checkpoint_is_no_new_start(cut: Path) -> None:
    for path in cut.glob("checkpoints/step-*/state.ckpt"):
        path.write_bytes(b"")
    assert kills.status_of(kills.start(cut)) == 1
    assert "no checkpoint in" in failure(cut) and "to train again from the start" in failure(cut)
    assert len(list(cut.glob("checkpoints/step-*"))) == 2


def test_best_weights_are_those_of_the_step_gone_on_from(cut: Path, whole: Path) -> None:
    """Best weights of a later step, of which the checkpoint knows nothing, do not stay."""
    best = cut / "checkpoints" / "best.safetensors"
    best.unlink()  # a link: the checkpoints keep theirs
    best.write_bytes((whole / "checkpoints" / "best.safetensors").read_bytes())
    process = kills.start(cut)
    kills.wait_until(process, lambda: kills.begun(cut)[0] == 2)
    process.kill()
    kills.status_of(process)
    assert best.read_bytes() == (cut / "checkpoints" / "step-00000009" / "best.safetensors").read_bytes()
    kills.finish(cut)
    kills.assert_same_run(cut, whole, STEPS)


def test_a_torn_last_line_of_the_metrics(cut: Path, whole: Path) -> None:
    lines = (cut / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "metrics.jsonl").write_bytes(b"".join(lines[:10]) + b'{"step": 10, "train/lo')
    kills.finish(cut)
    kills.assert_same_run(cut, whole, STEPS)


def test_random_states_are_in_the_checkpoint(whole: Path) -> None:
    import random

    import numpy as np

    from fieldtune.training.state_files import random_state, set_random_state

    def draw() -> tuple[Any, ...]:
        return random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()

    path = whole / "checkpoints" / "step-00000012" / "state.ckpt"
    (of_rank_0,) = torch.load(path, weights_only=True)["random_state"]
    assert of_rank_0.keys() == random_state().keys()
    state = random_state()
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first


def test_attempts_survive_a_torn_line(tmp_path: Path) -> None:
    for first, last in ((0, 7), (6, 10)):
        attempts = Attempts(tmp_path)
        attempts.begin(first)
        for step in range(first + 1, last + 1):
            attempts.step(step)
        attempts.end()
    assert Attempts(tmp_path).facts() == {"attempts": 2, "executed": 11}
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"from": 9, "t')
    attempts = Attempts(tmp_path)
    attempts.begin(9)
    attempts.step(10)
    attempts.end()
    assert Attempts(tmp_path).facts() == {"attempts": 3, "executed": 12}
    assert len((tmp_path / "attempts.jsonl").read_text().splitlines()) == 3


# --- files of others --------------------------------------------------------------------------------------------


def test_a_checkpoint_with_code_in_it_is_not_run(cut: Path, tmp_path: Path) -> None:
    """Its marker is right: whoever made the folder made that too."""
    folder, trap = cut / "checkpoints" / "step-00000009", tmp_path / "trap"
    state = torch.load(folder / "state.ckpt", weights_only=True)
    torch.save({**state, "random_state": Malicious(trap)}, folder / "state.ckpt")
    content = (folder / "state.ckpt").read_bytes()
    marker = runs.read_json(folder / "complete.json")
    marker["files"]["state.ckpt"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    runs.write_json(folder / "complete.json", marker)
    assert kills.status_of(kills.start(cut)) == 2
    assert "holds more than tensors and plain values. Nothing of it was run" in failure(cut)
    assert not trap.exists()


# --- what the disk refuses --------------------------------------------------------------------------------------


def test_a_file_that_may_not_grow(cut: Path, whole: Path) -> None:
    assert kills.status_of(kills.start(cut, file_limit=3_000_000)) == 1
    reason = failure(cut)
    assert f"the checkpoint of step 12 was not written to {cut}/checkpoints: File too large (4.9" in reason
    assert "MB needed" in reason and "the checkpoint of step 9 is untouched" in reason
    assert reason.endswith(f"(ulimit -f), then go on with the same command and run_dir={cut}")
    assert checkpoints(cut) == ["best.safetensors", "step-00000006", "step-00000009"]
    kills.finish(cut)
    kills.assert_same_run(cut, whole, STEPS)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs rights that this process has not")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(work: Path, whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "9m"):  # room for one checkpoint of 5 MB and best weights of 1.6 MB
        folder = kills.new_run(work, tmp_path / "disk" / "run", "trainer.max_epochs=4")
        assert kills.status_of(kills.start(folder)) == 1
        reason = failure(folder)
        assert "No space left on device" in reason and "MB needed" in reason and "MB free" in reason
        assert "the checkpoint of step 3 is untouched; make room, then go on with the same command" in reason
        assert "Traceback" not in reason and checkpoints(folder) == ["best.safetensors", "step-00000003"]
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        kills.finish(folder)
        kills.assert_same_run(folder, whole, STEPS)


def test_a_folder_that_may_not_be_written(cut: Path, whole: Path) -> None:
    place = cut / "checkpoints"
    place.chmod(0o555)
    assert kills.status_of(kills.start(cut, powerless=True)) == 1
    place.chmod(0o755)
    assert f"{place}: Permission denied" in failure(cut)
    assert "the checkpoint of step 9 is untouched; make the folder writable for this user" in failure(cut)
    kills.finish(cut)
    kills.assert_same_run(cut, whole, STEPS)


# --- signals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_saves_the_step_it_came_in(
    work: Path, whole: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = kills.new_run(work, tmp_path / "run", "trainer.max_epochs=4", "trainer.checkpoint_every=100")
    process = kills.start(folder)
    kills.wait_until(process, lambda: kills.begun(folder)[1] >= 4)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert kills.status_of(process) == status
    assert f"interrupted by {number.name}; go on with" in failure(folder)
    (saved,) = folder.glob("checkpoints/step-*")
    assert int(saved.name[-8:]) == kills.begun(folder)[1] == told(folder)[-1]["step"]
    steps = kills.finish(folder).manifest()["steps"]
    assert steps["executed"] == STEPS and steps["attempts"] == 2  # nothing is done twice
    kills.assert_same_run(folder, whole, STEPS)
