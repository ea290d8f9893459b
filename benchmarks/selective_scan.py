"""The selective scan on the CPU: seconds, forward and backward, of two forms that go token by token, and of ours.

python benchmarks/selective_scan.py --channels 1152 --states 16 --length 1569 --repeats 3

The defaults are a layer and direction of VideoMamba-M on eight frames. `as published` is the reference that comes with
Mamba: it makes the decays of all tokens first and takes them one by one, and its backward pass fills a tensor of all
states for each token. It takes minutes and gigabytes, so it is run once. `token by token` is our reference without
that. The others are measured in turns in one process, the lowest time of each counts. Results are compared as well.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn import functional

from fieldtune.models.mobile_videogpt.scan import selective_scan, selective_scan_reference

CLOSE = 1e-5


def as_published(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    """The steps of `selective_scan_ref` of mamba_ssm, on our order of dimensions."""
    step = functional.softplus(delta + delta_bias)
    decays = torch.exp(torch.einsum("bld,dn->bdln", step, A))
    driven = torch.einsum("bld,bln,bld->bdln", step, B, u)
    state = A.new_zeros(len(u), *A.shape)
    outputs = []
    for token in range(u.shape[1]):
        state = decays[:, :, token] * state + driven[:, :, token]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, token]))
    return (torch.stack(outputs, 1) + D * u) * functional.silu(z)


FORMS = {"as published": as_published, "token by token": selective_scan_reference, "ours": selective_scan}


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
    first = {name: passes(name, inputs, True) for name in FORMS}
    ours = first["ours"][1]
    for name in ("as published", "token by token"):
        theirs = first[name][1]
        away = max(
            (a - b).abs().max().item() / max(1.0, b.abs().max().item()) for a, b in zip(ours, theirs, strict=True)
        )
        print(f"largest difference of outputs and gradients from {name}: {away:.1e} (allowed {CLOSE})")
        if away > CLOSE:
            raise SystemExit("the forms differ")
    print(f"{arguments.length} tokens, {arguments.channels} channels, {arguments.states} states, fp32, ", end="")
    print(f"{torch.get_num_threads()} threads, lowest of {arguments.repeats}")
    for what, backward in (("forward and backward", True), ("forward alone", False)):
        taken: dict[str, list[float]] = {name: [] for name in FORMS}
        for number in range(arguments.repeats):
            for name in FORMS:
                if name != "as published" or not backward:
                    taken[name].append(passes(name, inputs, backward)[0])
                elif number == 0:
                    taken[name].append(first[name][0])
        best = {name: min(times) for name, times in taken.items()}
        print(f"{what}: ours {best['ours']:.3f} s")
        for name in ("as published", "token by token"):
            print(f"    {name} {best[name]:.3f} s: ours is {best[name] / best['ours']:.1f} times as fast")


if __name__ == "__main__":
    main()
