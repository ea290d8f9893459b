"""The selective scan: a case worked out by hand, and the fast form against the one that goes token by token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fieldtune.models.mobile_videogpt.scan import CHUNK, selective_scan, selective_scan_reference

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def inputs(
    length: int, *, batch: int = 2, channels: int = 6, states: int = 3, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    torch.manual_seed(length)
    long, small = (batch, length, channels), (batch, length, states)
    sizes = {"u": long, "delta": long, "B": small, "C": small, "z": long, "D": (channels,), "delta_bias": (channels,)}
    made = {name: torch.randn(size, dtype=dtype) for name, size in sizes.items()}
    made["A"] = -torch.exp(torch.randn(channels, states, dtype=dtype))
    return {name: made[name].requires_grad_() for name in NAMES}


def gradients(scan: object, given: dict[str, Tensor]) -> list[Tensor]:
    """Output and gradients of a weighted sum of it."""
    output = scan(**given)  # type: ignore[operator]
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), list(given.values()))]


def test_a_case_by_hand() -> None:
    """One channel, one state, two tokens; softplus(log(e - 1)) is 1."""
    one = math.log(math.e - 1)
    u, delta = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[one], [one]]])
    A, B, C = torch.tensor([[-math.log(2.0)]]), torch.tensor([[[1.0], [4.0]]]), torch.tensor([[[10.0], [100.0]]])
    # States: 1 * 1 * 2 = 2, then 2 / 2 + 1 * 4 * 3 = 13. Outputs: 10 * 2 + 0.5 * 2 and 100 * 13 + 0.5 * 3.
    for scan in (selective_scan, selective_scan_reference):
        found = scan(u, delta, A, B, C, D=torch.tensor([0.5]))
        torch.testing.assert_close(found, torch.tensor([[[21.0], [1301.5]]]))


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_both_forms_agree_with_their_gradients(length: int, dtype: torch.dtype, close: float) -> None:
    given = inputs(length, dtype=dtype)
    for ours, theirs in zip(gradients(selective_scan, given), gradients(selective_scan_reference, given), strict=True):
        assert (ours - theirs).abs().max() <= close * max(1.0, theirs.abs().max().item())


def test_at_the_length_of_a_video_clip() -> None:
    """1,569 tokens, fp32, 1e-5."""
    given = inputs(1569, batch=1, channels=32, states=16, dtype=torch.float32)
    for ours, theirs in zip(gradients(selective_scan, given), gradients(selective_scan_reference, given), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.abs().max().item())


def test_what_may_be_left_out() -> None:
    given = inputs(20)
    for absent in ("D", "z", "delta_bias"):
        some = {name: part for name, part in given.items() if name != absent}
        pairs = zip(gradients(selective_scan, some), gradients(selective_scan_reference, some), strict=True)
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_strong_and_weak_decays(scale: float) -> None:
    """Step sizes times rates of 1e5 a token: the states forget at once, and nothing overflows."""
    given = inputs(2 * CHUNK + 3, dtype=torch.float32)
    with torch.no_grad():
        given["A"].mul_(scale)
        given["delta"].add_(20.0)
    for ours, theirs in zip(gradients(selective_scan, given), gradients(selective_scan_reference, given), strict=True):
        assert ours.isfinite().all()
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.abs().max().item())


def test_the_gradient_is_the_slope() -> None:
    given = inputs(CHUNK + 2, batch=1, channels=2, states=2)
    assert torch.autograd.gradcheck(lambda *parts: selective_scan(*parts), tuple(given.values()))


def test_half_precision_is_computed_in_single() -> None:
    given = {name: part.detach().to(torch.bfloat16) for name, part in inputs(40).items()}
    found = selective_scan(**given)
    assert found.dtype == torch.bfloat16
    exact = selective_scan_reference(**{name: part.double() for name, part in given.items()})
    torch.testing.assert_close(found.double(), exact, atol=1e-2, rtol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        single = {name: part.float() for name, part in given.items()}
        torch.testing.assert_close(selective_scan(**single).double(), exact, atol=1e-4, rtol=1e-4)


def test_only_the_beginnings_of_chunks_are_kept() -> None:
    """Nothing of the size of all states: what the backward pass needs is no larger than the inputs."""
    given = inputs(8 * CHUNK, batch=1, channels=64, states=8)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part.numel()) or part, lambda part: part):
        selective_scan(**given)
    assert max(kept) == given["u"].numel()
    assert 8 * 64 * 8 in kept  # the state before each of eight chunks


def test_a_trace_sees_shapes() -> None:
    given = {name: part.detach().to("meta").requires_grad_() for name, part in inputs(40).items()}
    output = selective_scan(**given)
    output.sum().backward()
    assert output.shape == (2, 40, 6) and all(part.grad.shape == part.shape for part in given.values())
