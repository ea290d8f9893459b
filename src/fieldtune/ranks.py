"""The processes of a run: which one this is, how many a configuration needs, what each finds in its environment.

Processes that work on one run are numbered by the variables that torchrun sets: RANK of WORLD_SIZE, LOCAL_RANK of
LOCAL_WORLD_SIZE on its machine, GROUP_RANK of the machine, MASTER_ADDR:MASTER_PORT where they meet. Given from outside
they are respected; a step of Slurm's srun is translated to them; else `launch` sets them. No torch here.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fieldtune.config import Accelerator, HardwareConfig, Strategy
from fieldtune.errors import UserError

DEEPSPEED = frozenset({Strategy.zero2, Strategy.zero3, Strategy.zero3_offload})
PROCESS_A_DEVICE = frozenset({Strategy.ddp, Strategy.fsdp2}) | DEEPSPEED

DEVICE_FILES = Path("/dev")


@dataclass(frozen=True, slots=True)
class Rank:
    """One of the processes of a run; number 0 writes the run folder."""

    number: int = 0
    world_size: int = 1
    local: int = 0  # number on its machine
    local_world_size: int = 1

    @property
    def writes(self) -> bool:
        return self.number == 0


def this_rank() -> Rank:
    """This process among those of its run; alone if nothing says otherwise. `UserError` if the variables are broken."""
    found = given()
    if found is None:
        return Rank()
    try:
        return Rank(
            int(found["RANK"]),
            int(found["WORLD_SIZE"]),
            int(found.get("LOCAL_RANK", 0)),
            int(found.get("LOCAL_WORLD_SIZE", 1)),
        )
    except ValueError as error:
        raise UserError(f"RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be whole numbers ({error})") from None


def given() -> Mapping[str, str] | None:
    """The variables of torchrun as they are in the environment, or as Slurm's srun gives them; None without."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return os.environ
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _of_slurm(os.environ)
    return None


def _of_slurm(slurm: Mapping[str, str]) -> dict[str, str]:
    """What srun says of a task, under torchrun's names. All tasks of a job agree on the port without talking."""
    tasks = re.match(r"\d+", slurm.get("SLURM_STEP_TASKS_PER_NODE", "1"))  # as in 2(x4): two on each of four nodes
    return {
        "RANK": slurm["SLURM_PROCID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": tasks.group() if tasks else "1",
        "GROUP_RANK": slurm["SLURM_NODEID"],
        "MASTER_ADDR": slurm.get("MASTER_ADDR") or _first_host(slurm["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": slurm.get("MASTER_PORT") or str(20_000 + int(slurm["SLURM_JOB_ID"]) % 10_000),
    }


def _first_host(nodes: str) -> str:
    """The first name of a Slurm node list: node[03-05,9] -> node03, a,b -> a."""
    found = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    assert found is not None, nodes
    return "".join(part or "" for part in found.groups())


def devices(hardware: HardwareConfig) -> int:
    """Devices of a machine that a run works on."""
    if hardware.devices is not None:
        return hardware.devices
    if hardware.accelerator is Accelerator.cpu or hardware.strategy is Strategy.single:
        return 1
    return max(1, visible_gpus())


def processes(hardware: HardwareConfig) -> int:
    """Processes of a machine that a training run starts."""
    return devices(hardware) if hardware.strategy in PROCESS_A_DEVICE else 1


def environments(hardware: HardwareConfig) -> list[dict[str, str]]:
    """What to add to the environment of each worker that this machine starts: one item a process."""
    found = given()
    if found is not None:  # torchrun or srun started one of us a process already
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
        return [{name: found[name] for name in names if name in found}]
    if hardware.strategy not in PROCESS_A_DEVICE:
        return [{}]
    count = processes(hardware)
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    return [{**common, "RANK": str(number), "LOCAL_RANK": str(number)} for number in range(count)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def cores() -> int:
    """CPU cores of this machine that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether an NVIDIA driver is there."""
    return any(Path(path).exists() for path in ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvidia0"))


def visible_gpus() -> int:
    """GPUs that this process may use, without asking CUDA: device files, less what CUDA_VISIBLE_DEVICES hides."""
    there = len([path for path in DEVICE_FILES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()])
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return there
    names = [name.strip() for name in named.split(",")]
    return len([name for name in names if (int(name) < there if name.isdigit() else name not in ("", "-1"))])
