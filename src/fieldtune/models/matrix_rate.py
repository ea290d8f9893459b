"""How many floating-point operations a second this machine's matrix products do, and what its GPU has."""

from __future__ import annotations

import time

import torch

ROWS, INNER, COLUMNS = 1024, 768, 3072  # a layer's product in the small models
SECONDS = 0.2  # a try; short bursts above the steady rate are no rate to plan with


def matrix_rate(tries: int = 3) -> float:
    """fp32 operations a second of products on the CPU: the median of a few tries of `SECONDS`."""
    return sorted(rates(ROWS, INNER, COLUMNS, SECONDS, tries))[tries // 2]


def rates(
    rows: int, inner: int, columns: int, seconds: float, tries: int, dtype: torch.dtype = torch.float32
) -> list[float]:
    """Operations a second of [rows, inner] x [inner, columns] on the CPU, of each try of so many seconds."""
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    torch.mm(left, right, out=out)
    found = []
    for _ in range(tries):
        done, since = 0, time.perf_counter()
        while time.perf_counter() - since < seconds:
            torch.mm(left, right, out=out)
            done += 1
        found.append(done * 2.0 * rows * inner * columns / (time.perf_counter() - since))
    return found


def gpu() -> tuple[str, int, int] | None:
    """Name, free bytes and number of this machine's GPUs (the first one's memory); None without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(0), int(torch.cuda.mem_get_info(0)[0]), torch.cuda.device_count()
