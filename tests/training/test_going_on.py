"""The commands: signals reach the worker, Slurm's warning asks for the job again, run_dir=latest goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fieldtune import runs
from fieldtune.errors import UserError
from fieldtune.launch import _latest
from tests.commands import offline_history, offline_record

from ..stages import command, compose, run_command, told
from . import kills


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kills.prepared(tmp_path_factory.mktemp("going-on"))


def words(work: Path, *more: str) -> list[str]:
    places = [f"output_dir={work / 'outputs'}", f"dataset_dir={work / 'datasets'}"]
    return [*kills.data_words(work), *places, "name=latest_test", *more]


@pytest.mark.slow
def test_slurms_warning_requeues_and_latest_goes_on(work: Path, tmp_path: Path) -> None:
    """Only the launcher gets the signal; `scontrol` is a script that writes down what it is asked."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    # As srun sets them for one task: Lightning takes that for Slurm too, and must leave the signals alone.
    slurm = {"JOB_ID": "4711", "JOB_NAME": "fit", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    environment = {**os.environ, "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    environment |= {f"SLURM_{name}": value for name, value in slurm.items()} | {"SLURM_NODELIST": "localhost"}
    arguments = words(work, "trainer.max_epochs=8", "trainer.checkpoint_every=1000")
    launcher = subprocess.Popen(
        command("train", *arguments), cwd=work, env=environment, stdout=subprocess.PIPE, text=True
    )
    folder: list[Path] = []

    def at_step_three() -> bool:
        folder[:] = [path.parent for path in work.glob("outputs/*/*latest_test/run.json")]
        return bool(folder) and kills.begun(folder[0])[1] >= 3

    while not at_step_three():
        assert launcher.poll() is None
    launcher.send_signal(signal.SIGUSR1)
    output, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 138, output
    assert "interrupted by SIGUSR1" in output and "Slurm will start job 4711 again" in output
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert runs.open_run(folder[0]).status == "failed"

    done = run_command(work, "train", *arguments, "run_dir=latest")
    assert done.returncode == 0 and f"going on from {folder[0]}/checkpoints/step-" in done.stdout, done.stderr
    run = runs.open_run(folder[0])
    assert run.status == "finished" and run.manifest()["steps"]["executed"] == 24
    done = run_command(work, "train", *arguments, "run_dir=latest")
    assert done.returncode == 2 and "no unfinished train run of latest_test" in done.stderr


def test_latest_is_the_newest_unfinished_one_of_these_words(work: Path) -> None:
    outputs = work / "others"
    arguments = [*words(work), f"output_dir={outputs}"]
    config = compose(work, "train", *arguments, "run_dir=latest")
    folders = [
        kills.new_run(work, outputs / "2026-01-01" / f"0{number}-00-00-latest_test", *arguments, *more)
        for number, more in enumerate([[], [], ["seed=5"]])
    ]
    assert _latest("train", config) == folders[1]
    with runs.locked(folders[1]):
        assert _latest("train", config) == folders[0]
    runs.write_json(folders[1] / runs.MANIFEST, {})
    assert _latest("train", config) == folders[0]
    runs.write_json(folders[0] / runs.MANIFEST, {})
    with pytest.raises(UserError, match=r"run_dir=latest: no unfinished .*02-00-00.* seed was 5, is 1337"):
        _latest("train", config)
    with pytest.raises(UserError, match=r"no unfinished evaluate run of latest_test .*; leave run_dir= out"):
        _latest("evaluate", config)


@pytest.mark.slow
def test_offline_copies_of_a_resumed_run(work: Path) -> None:
    """W&B cannot resume offline: each attempt is a copy of its own, under the same run id."""
    arguments = words(work, "trainer.max_epochs=4", "tracking=offline", f"run_dir={work / 'tracked'}")
    launcher = subprocess.Popen(command("train", *arguments), cwd=work, stdout=subprocess.DEVNULL)
    while kills.begun(work / "tracked")[1] < 5:
        assert launcher.poll() is None
    launcher.terminate()
    assert launcher.wait(120) == 143
    assert run_command(work, "train", *arguments).returncode == 0
    copies = list((work / "tracked").glob("wandb/offline-run-*/*.wandb"))
    identity = runs.read_json(work / "tracked" / runs.STARTED)["id"]
    assert len(copies) == 2 and {path.stem for path in copies} == {f"run-{identity}"}
    newest, steps = offline_record(work / "tracked"), [item["step"] for item in offline_history(work / "tracked")]
    assert newest["state"] == "finished" and newest["run_id"] == identity
    assert steps[0] > 5 and steps == list(range(steps[0], 13))  # only its own steps; metrics.jsonl has them all
    assert [line["step"] for line in told(work / "tracked")] == list(range(13))
