"""Devices that cannot work together are refused in one line, before torch is imported or a folder is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune import ranks
from fieldtune.checks import check
from fieldtune.config import Accelerator, HardwareConfig, Strategy
from fieldtune.errors import ConfigError, UserError
from tests.stages import compose

RANK_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*RANK_NAMES, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def problems(folder: Path, *words: str, stage: str = "train") -> str:
    with pytest.raises(ConfigError) as raised:
        check(compose(folder, stage, *words), stage)
    return str(raised.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hardware.devices=2"], "hardware.devices=2 with hardware.strategy=single: give hardware=ddp"),
        (
            ["hardware=dp", "hardware.accelerator=cpu"],
            "hardware.strategy=dp copies the model onto GPUs; give hardware=",
        ),
        (["hardware=fsdp2", "hardware.precision=fp16"], "hardware.precision=fp16 with hardware.strategy=fsdp2: "),
        (["hardware=deepspeed_zero2", "hardware.precision=fp16"], "fp16 with hardware.strategy=zero2: "),
        (
            ["hardware=deepspeed_zero3_offload", "hardware.accelerator=cpu"],
            "hardware.strategy=zero3_offload moves weights from GPUs to main memory, where a CPU has them; give hard",
        ),
        (["model=llava_tiny", "hardware=dp"], "hardware.strategy=dp with a model that sees is not done here; give "),
        (["model=gpt2_tiny", "model.projector=p.safetensors"], "model.projector=p.safetensors is for models that see"),
        (["model=llava_tiny", "model.projector=gone.safetensors"], "model.projector=gone.safetensors does not exist"),
        (["hardware=ddp_cpu", "hardware.precision=fp16"], "hardware.precision=fp16 needs a GPU"),
        (["hardware=ddp_cpu", "hardware.nodes=2"], "hardware.nodes=2: start train.py by torchrun or srun on each node"),
        (["hardware.nodes=2"], "hardware.nodes=2 with hardware.strategy=single; give hardware=ddp"),
        (["hardware.devices=0"], "hardware.devices=0 is out of range"),
        (["trainer.stop_after_bad_steps=0"], "trainer.stop_after_bad_steps=0 is out of range"),
    ],
)
def test_impossible_combinations(tmp_path: Path, words: list[str], told: str) -> None:
    assert told in problems(tmp_path, *words)


def test_a_missing_deepspeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if "site-packages" not in path])
    monkeypatch.delitem(__import__("sys").modules, "deepspeed", raising=False)
    wanted = (
        "hardware.strategy=zero{} needs the package deepspeed; pip install 'fieldtune[deepspeed]', or give hardware="
    )
    told = problems(tmp_path, "hardware=deepspeed_zero3", "tracking=off")
    assert wanted.format(3) + "fsdp2" in told
    told = problems(tmp_path, "hardware=deepspeed_zero2_cpu", "tracking=off")
    assert wanted.format(2) + "ddp_cpu" in told


@pytest.mark.parametrize(
    ("named", "count"), [(None, 3), ("0,2", 2), ("", 0), ("-1", 0), ("1,7", 1), ("GPU-8f3a,GPU-91bc", 2)]
)
def test_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, count: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(ranks, "DEVICE_FILES", tmp_path)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert ranks.visible_gpus() == count
    assert ranks.devices(HardwareConfig(accelerator=Accelerator.gpu, strategy=Strategy.dp)) == max(1, count)
    if count:
        told = problems(tmp_path, "hardware=ddp", "hardware.devices=4")
        assert f"hardware.devices=4: this machine shows {count} GPU" in told


def test_processes_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    told = problems(tmp_path, "hardware=ddp_cpu")
    assert "4 processes were started (WORLD_SIZE), hardware.strategy=ddp with devices=2 and nodes=1 needs 2" in told
    assert "need one folder that all of them see; give run_dir=..." in told
    assert "evaluate.py is one process; start it without torchrun or srun" in problems(tmp_path, stage="evaluate")
    assert ranks.environments(HardwareConfig(accelerator=Accelerator.cpu)) == [{"RANK": "1", "WORLD_SIZE": "4"}]
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(UserError, match="RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be whole numbers"):
        ranks.this_rank()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node07", "node07"), ("node[03-05,9]", "node03"), ("a,b", "a"), ("gpu-[12]-x,gpu-13-x", "gpu-12-x")],
)
def test_tasks_of_srun(monkeypatch: pytest.MonkeyPatch, nodes: str, first: str) -> None:
    slurm = {"STEP_NUM_TASKS": "8", "STEP_TASKS_PER_NODE": "4(x2)", "STEP_NODELIST": nodes, "JOB_ID": "123456"}
    for name, value in {**slurm, "PROCID": "6", "LOCALID": "2", "NODEID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert ranks.this_rank() == ranks.Rank(number=6, world_size=8, local=2, local_world_size=4)
    (found,) = ranks.environments(HardwareConfig(accelerator=Accelerator.cpu, strategy=Strategy.ddp))
    assert (found["MASTER_ADDR"], found["MASTER_PORT"], found["GROUP_RANK"]) == (first, "23456", "1")


def test_one_task_of_srun_is_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert ranks.this_rank() == ranks.Rank() and ranks.environments(HardwareConfig(accelerator=Accelerator.cpu)) == [{}]
