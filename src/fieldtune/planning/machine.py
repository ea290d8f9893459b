"""What a run has: memory, devices, a rate of work. Of this machine, or of one that is named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fieldtune.config import Accelerator, Config, Precision
from fieldtune.errors import UserError

# name: memory in GB, dense TFLOP/s of matrix products in 16 bits and in fp32, from the makers' data sheets.
GPUS: Mapping[str, tuple[float, float, float]] = {
    "T4": (16, 65, 8.1),
    "V100": (16, 125, 15.7),
    "P100": (16, 18.7, 9.3),
    "L4": (24, 121, 30.3),
    "A10G": (24, 70, 31.5),
    "RTX3090": (24, 71, 35.6),
    "RTX4090": (24, 165, 82.6),
    "A100": (40, 312, 19.5),
    "L40S": (48, 362, 91.6),
    "H100": (80, 989, 67),
    "H200": (141, 989, 67),
}
GPU_SHARE = 0.3  # of the peak rate that training of small models gets; an assumption
CPU_SHARE = 0.6  # of the measured rate of matrix products
# What a GPU's driver leaves of the memory on the label.
USABLE = 0.93


@dataclass(frozen=True, slots=True)
class Machine:
    """memory: bytes a device may take. rate: floating-point operations a second of all devices together."""

    memory: int
    devices: int
    rate: float | None
    says_memory: str
    says_rate: str


def machine(config: Config, memory: str = "", devices: str = "", gpu: str = "") -> Machine:
    """The named machine, or this one for what is not named. memory: as in 16GB; gpu: one of `GPUS`."""
    count = _count(devices)
    on_gpu = config.hardware.accelerator is Accelerator.gpu
    if gpu and gpu not in GPUS:
        raise UserError(f"gpu={gpu} is not known; allowed: {', '.join(GPUS)}; or give memory=16GB")
    if gpu and not on_gpu:
        raise UserError(f"gpu={gpu} with hardware on the CPU; give hardware=gpu")
    given = _bytes(memory) if memory else None
    if not on_gpu:
        from fieldtune.models.matrix_rate import matrix_rate

        rate = CPU_SHARE * matrix_rate()
        says = (
            f"{CPU_SHARE:.0%} of this processor's matrix products, {rate / CPU_SHARE / 1e9:,.0f} GFLOP/s measured now"
        )
        return Machine(given or available(), count or 1, rate, "given" if given else "available now", says)
    if gpu:
        size, half, full = GPUS[gpu]
        peak = (full if config.hardware.precision is Precision.fp32 else half) * 1e12
        says = f"{GPU_SHARE:.0%} of the {peak / 1e12:g} TFLOP/s on a {gpu}'s data sheet, an assumption"
        room = given or int(USABLE * size * 1e9)
        return Machine(room, count or 1, (count or 1) * GPU_SHARE * peak, "given" if given else f"of a {gpu}", says)
    return _own_gpu(given, count)


def _own_gpu(given: int | None, count: int | None) -> Machine:
    from fieldtune.models.matrix_rate import gpu as found_gpu

    found = found_gpu()
    if found is None and given is None:
        raise UserError("no GPU is visible here; name the one to plan for: gpu=T4, or memory=16GB")
    name, free, there = found or ("", 0, 1)
    known = next((key for key in GPUS if key in name.replace(" ", "")), None)
    rate = GPU_SHARE * GPUS[known][1] * 1e12 * (count or there) if known else None
    says = f"{GPU_SHARE:.0%} of a {known}'s data sheet, an assumption" if known else "not known; give gpu=..."
    return Machine(given or free, count or there, rate, "given" if given else f"free on {name}", says)


def available() -> int:
    """Bytes that a new process may take on this machine without swapping."""
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GB|GiB|G|MB|M)?", text)
    if not found or not float(found[1]):
        raise UserError(f"memory={text} is not a size; give it as in memory=16GB")
    unit = {"GiB": 1 << 30, "MB": 1e6, "M": 1e6}.get(found[2] or "GB", 1e9)
    return int(float(found[1]) * unit)


def _count(text: str) -> int | None:
    if text and not (text.isdecimal() and int(text)):
        raise UserError(f"devices={text} is not a number of devices; give a whole number, 1 or more")
    return int(text) if text else None
