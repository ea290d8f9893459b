"""Runs of several processes as a user starts them: by the command, torchrun or srun's variables; and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fieldtune import ranks, runs
from tests.commands import ROOT, offline_record
from tests.stages import ALLOCATOR, command, curve, lines_of, run_command

from .conftest import words

FSDP2, ZERO2, ZERO3 = ("hardware=fsdp2", "hardware=deepspeed_zero2", "hardware=deepspeed_zero3")
ON_CPU = ("hardware.accelerator=cpu", "hardware.precision=fp32", "hardware.devices=2")


def arguments(work: Path, *more: str) -> list[str]:
    return [*words(work, *more), f"output_dir={work / 'outputs'}", f"dataset_dir={work / 'datasets'}"]


def train(work: Path, *more: str) -> runs.Run:
    """train.py with run_dir= among the words, which must end well."""
    done = run_command(work, "train", *arguments(work, *more))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (folder,) = [word.partition("=")[2] for word in more if word.startswith("run_dir=")]
    return runs.open_run(Path(folder))


def begin(work: Path, *more: str, before: tuple[str, ...] = (), **variables: str) -> subprocess.Popen[str]:
    words_ = command("train", *arguments(work, *more))
    return subprocess.Popen(
        [words_[0], *before, *words_[1:]],
        cwd=work,
        env={**os.environ, **ALLOCATOR, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(*started: subprocess.Popen[str]) -> str:
    """Their output; all must end well."""
    output = ""
    for process in started:
        output += process.communicate(timeout=600)[0]
        assert process.returncode == 0, output[-3000:]
    return output


def same_losses(one: runs.Run, other: runs.Run, tolerance: float = 2e-6) -> None:
    for name in ("train/loss", "val/loss"):
        assert curve(other, name).keys() == curve(one, name).keys()
        assert list(curve(other, name).values()) == pytest.approx(list(curve(one, name).values()), rel=tolerance)


@pytest.fixture(scope="module")
def one(work: Path) -> runs.Run:
    """One process, ten rows a step."""
    return train(work, f"run_dir={work / 'one-process'}", "trainer.micro_batch_size=10", "trainer.accumulation=1")


# The same ten rows a step on two processes.
SHARED = ("trainer.micro_batch_size=5", "trainer.accumulation=1")


def pids(folder: Path) -> dict[int, int]:
    """Process ids of the workers of a run folder, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().split(b"\0")
            variables = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"fieldtune.worker" in line and str(folder).encode() in line:
            (rank,) = [int(value[5:]) for value in variables if value.startswith(b"RANK=")]
            found[rank] = int(path.name)
    return found


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_all_and_the_run_goes_on(work: Path, one: runs.Run) -> None:
    folder = work / "cut-off"
    long = ("trainer.max_epochs=200", "trainer.eval_every=5", "hardware=ddp_cpu", f"run_dir={folder}", *SHARED)
    started = begin(work, *long)
    for _ in range(3000):
        if list(folder.glob("checkpoints/step-*/complete.json")):
            break
        time.sleep(0.1)
    os.kill(pids(folder)[1], signal.SIGKILL)
    output = started.communicate(timeout=120)[0]
    assert started.returncode == 128 + signal.SIGKILL
    told = [line for line in output.splitlines() if "rank" in line or "fault" in line or "rror" in line]
    assert len(told) == 1 and told[0].startswith("rank 1 was ended by SIGKILL")
    assert pids(folder) == {}
    assert runs.open_run(folder).status == "failed"
    again = begin(work, *long)
    for _ in range(3000):
        if not (folder / runs.FAILURE).exists() and runs.is_running(folder):
            break
        time.sleep(0.1)
    time.sleep(1)
    again.send_signal(signal.SIGTERM)
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 128 + signal.SIGTERM and output.count("interrupted by SIGTERM; go on with") <= 1
    assert pids(folder) == {}
    wanted, found = [list(curve(each, "train/loss").values())[:6] for each in (one, folder)]
    assert len(found) >= 3 and found == pytest.approx(wanted[: len(found)], rel=2e-6)


@pytest.mark.slow
def test_torchrun_and_its_nodes(work: Path, one: runs.Run) -> None:
    """torchrun starts a process a device; two of them, as if on two machines, meet at one address."""
    folder = work / "torchrun"
    launcher = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1")
    port = ranks.environments(_two())[0]["MASTER_PORT"]
    nodes = [
        begin(
            work,
            "hardware=ddp_cpu",
            "hardware.devices=1",
            "hardware.nodes=2",
            *SHARED,
            f"run_dir={folder}",
            before=(*launcher, f"--master-port={port}", f"--node-rank={number}"),
        )
        for number in range(2)
    ]
    output = end(*nodes)
    assert output.count("kept the weights of step") == 1
    same_losses(one, runs.open_run(folder))


def _two() -> ranks.HardwareConfig:
    from fieldtune.config import Accelerator, Strategy

    return ranks.HardwareConfig(accelerator=Accelerator.cpu, strategy=Strategy.ddp, devices=2)


@pytest.mark.slow
def test_tasks_of_srun(work: Path, one: runs.Run) -> None:
    """What srun sets for two tasks on one node; the address is given, as no host is called node07 here."""
    folder = work / "srun"
    port = ranks.environments(_two())[0]["MASTER_PORT"]
    common = {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "node07",
        "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    own = [{"SLURM_PROCID": number, "SLURM_LOCALID": number} for number in "01"]
    tasks = [begin(work, "hardware=ddp_cpu", *SHARED, f"run_dir={folder}", **common, **variables) for variables in own]
    end(*tasks)
    same_losses(one, runs.open_run(folder))


@pytest.mark.slow
def test_a_sweep_of_two_jobs_of_two_processes(work: Path) -> None:
    outputs = work / "sweep"
    jobs = ("trainer.learning_rate=1e-3,2e-3", "hardware=ddp_cpu", "tracking=offline", f"output_dir={outputs}")
    short = ("trainer.max_steps=2", "trainer.eval_every=1", *SHARED)
    done = run_command(work, "train", "--multirun", *arguments(work, *short), *jobs)
    assert done.returncode == 0, done.stderr
    found = runs.list_runs(outputs)
    assert len(found) == 2 and all(run.status == "finished" for run in found)
    rates = {max(curve(run, "train/learning_rate").values()) for run in found}
    assert rates == {1e-3, 2e-3}
    first, second = found
    assert curve(first, "train/loss")[1] == curve(second, "train/loss")[1]
    assert curve(first, "train/loss")[2] != curve(second, "train/loss")[2]
    for run in found:
        assert [line["step"] for line in lines_of(run.folder / "metrics.jsonl")] == [0, 1, 2]
        assert len(list(run.folder.glob("wandb/offline-run-*"))) == 1
        assert offline_record(run.folder)["exit_code"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [FSDP2, ZERO2, ZERO3])
def test_weights_that_are_shared_out(work: Path, strategy: str) -> None:
    """The training equals that of one process, its result stands alone, and it goes on after it was cut off."""
    if strategy != FSDP2:
        pytest.importorskip("deepspeed")
    folder = work / strategy.partition("=")[2]
    sample = ("trainer.sample_rows=1", "trainer.sample_tokens=4", f"run_dir={folder}")
    # 30 rows, 12 a step by two micro-batches a process: the last window has one a process.
    sizes = ("trainer.micro_batch_size=3", "trainer.accumulation=2", "trainer.eval_every=2", "trainer.clip_norm=1")
    wanted = train(work, *sizes, "trainer.micro_batch_size=6", f"run_dir={folder}-one")
    run = train(work, *sizes, strategy, *ON_CPU, *sample)
    same_losses(wanted, run, 1e-5)
    norms = [list(curve(each, "train/gradient_norm").values()) for each in (wanted, run)]
    assert norms[1] == pytest.approx(norms[0], rel=2e-4)
    tensors = [load_file(each.folder / "model" / "model.safetensors") for each in (wanted, run)]
    assert {name: value.shape for name, value in tensors[0].items()} == {n: v.shape for n, v in tensors[1].items()}
    assert loss_without_deepspeed(run) == pytest.approx(run.manifest()["metrics"]["val/best_loss"], rel=1e-6)
    # Started again from its last checkpoint, without its results.
    (folder / runs.MANIFEST).unlink()
    (folder / "model" / "model.safetensors").unlink()
    again = train(work, *sizes, strategy, *ON_CPU, *sample)
    assert curve(again, "train/loss").keys() == curve(wanted, "train/loss").keys()
    again_tensors = load_file(again.folder / "model" / "model.safetensors")
    assert all(bool((again_tensors[name] == value).all()) for name, value in tensors[1].items())


def loss_without_deepspeed(run: runs.Run) -> float:
    """Validation loss of the result in a process that cannot import DeepSpeed."""
    code = (
        "import sys; sys.modules['deepspeed'] = None\n"
        "from pathlib import Path\n"
        "from fieldtune import runs\n"
        "from fieldtune.loading import load\n"
        "from tests.training.test_stage import val_loss\n"
        "from transformers import GPT2LMHeadModel\n"
        f"run = runs.open_run(Path({str(run.folder)!r}))\n"
        "print(val_loss(run, GPT2LMHeadModel.from_pretrained(run.folder / 'model')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])
