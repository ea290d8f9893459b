"""The machine: a process's memory as the kernel counts it, and the rate of matrix products."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fieldtune.config import Precision
from fieldtune.ranks import cores

# Products (rows, inner, columns) whose best rate stands for the machine: a layer of the small models, and a large one.
SHAPES = ((512, 576, 1536), (2048, 576, 1536), (1024, 768, 3072), (2048, 2048, 2048))
SECONDS = 0.4  # each shape is multiplied for so long, three times; short bursts above that are no rate to plan with
PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "pytorch-lightning")


def memory(name: str, pid: int | str = "self") -> int:
    """Bytes of a process by their name in /proc/PID/status: VmRSS (now) or VmHWM (the most there ever was)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {name}")


def matrix_rate(precision: Precision) -> dict[str, float]:
    """Matrix products of this machine: floating-point operations a second by shape, the best of three tries."""
    import torch

    from fieldtune.models.matrix_rate import rates

    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    return {"x".join(map(str, shape)): max(rates(*shape, SECONDS, tries=3, dtype=dtype)) for shape in SHAPES}


def described() -> dict[str, Any]:
    """Processor, cores, memory and versions, for the record."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
