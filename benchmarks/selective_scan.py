"""The selective scan on the CPU: seconds, forward and backward, of the form that goes token by token and of ours.

python benchmarks/selective_scan.py --channels 1152 --states 16 --length 1569 --repeats 3

The defaults are a layer and direction of VideoMamba-M on eight frames. Both forms are measured in turns in one process,
the lowest time of each counts. Results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from fieldtune.models.mobile_videogpt.scan import selective_scan, selective_scan_reference

FORMS = {"token by token": selective_scan_reference, "ours": selective_scan}
CLOSE = 1e-5


def made(length: int, channels: int, states: int) -> dict[str, Tensor]:
    """Inputs of the sizes that a trained network has: step sizes around 0.01, rates -1 to -states."""
    torch.manual_seed(0)
    rates = torch.arange(1.0, states + 1).repeat(channels, 1)
    inputs = {
        "u": torch.randn(1, length, channels),
        "delta": torch.randn(1, length, channels) - 4.5,
        "A": -rates,
        "B": torch.randn(1, length, states),
        "C": torch.randn(1, length, states),
        "D": torch.ones(channels),
        "z": torch.randn(1, length, channels),
        "delta_bias": torch.zeros(channels),
    }
    return {name: part.requires_grad_() for name, part in inputs.items()}


def passes(name: str, inputs: dict[str, Tensor], backward: bool) -> tuple[float, list[Tensor]]:
    """Seconds, and the output with the gradients."""
    with torch.set_grad_enabled(backward):
        begin = time.perf_counter()
        output = FORMS[name](**inputs)
        found = [output]
        if backward:
            found += torch.autograd.grad(output.sum(), list(inputs.values()))
        return time.perf_counter() - begin, [part.detach() for part in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1569, help="tokens")
    parser.add_argument("--channels", type=int, default=1152)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    inputs = made(arguments.length, arguments.channels, arguments.states)
    slow, fast = (passes(name, inputs, True)[1] for name in FORMS)
    away = max(((a - b).abs().max() / b.abs().max().clamp(min=1.0)).item() for a, b in zip(fast, slow, strict=True))
    print(f"largest difference of outputs and gradients: {away:.1e} (allowed {CLOSE})")
    if away > CLOSE:
        raise SystemExit("the two forms differ")
    print(f"{arguments.length} tokens, {arguments.channels} channels, {arguments.states} states, fp32, ", end="")
    print(f"{torch.get_num_threads()} threads, lowest of {arguments.repeats}")
    for what, backward in (("forward and backward", True), ("forward alone", False)):
        taken: dict[str, list[float]] = {name: [] for name in FORMS}
        for _ in range(arguments.repeats):
            for name in FORMS:
                taken[name].append(passes(name, inputs, backward)[0])
        best = {name: min(times) for name, times in taken.items()}
        said = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in best.items())
        print(f"{what}: {said}: {best['token by token'] / best['ours']:.1f} times as fast")


if __name__ == "__main__":
    main()
