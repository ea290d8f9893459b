"""The selective scan of Mamba (arXiv 2312.00752), in plain PyTorch, with gradients.

For each channel d, state n and token t, with a step size s and h[-1] = 0:

    h[t, n, d] = exp(s[t, d] A[d, n]) h[t - 1, n, d] + s[t, d] B[t, n] u[t, d]
    y[t, d] = sum over n of C[t, n] h[t, n, d] + D[d] u[t, d]

`selective_scan_reference` says just that. `selective_scan` gives the same numbers faster: it goes through the sequence
chunk by chunk, computes what does not depend on earlier tokens for a whole chunk at once and leaves one fused operation
a token to the recurrence. Chunks are short enough to stay in the processor's cache. Only the states before each chunk
are kept; the backward pass makes the others again. No decay is ever accumulated or divided by, so that strong decays
cannot overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 16  # tokens whose states are in memory at a time


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> Tensor:
    """`selective_scan`, token by token."""
    wide, step = _prepared(u, delta, delta_bias)
    state = wide.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for s, x, entry, reading in zip(*(part.unbind(1) for part in (step, wide, B, C)), strict=True):
        decay = torch.exp(s[..., None] * A)
        state = decay * state + (s * x)[..., None] * entry[:, None]
        outputs.append((state * reading[:, None]).sum(-1))
    return _finished(torch.stack(outputs, 1), wide, D, z).to(u.dtype)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> Tensor:
    """u, delta, z [batch, length, channels], A [channels, states] (negative), B, C [batch, length, states], D and
    delta_bias [channels] -> [batch, length, channels] in the type of u.

    The step size is softplus(delta + delta_bias), the result is multiplied by silu(z). Computed in fp32 at least. On a
    GPU where the package mamba_ssm is installed, its kernel is used.
    """
    kernel = _kernel() if u.is_cuda else None
    if kernel is not None:
        return _by_kernel(kernel, u, delta, A, B, C, D, z, delta_bias)
    wide, step = _prepared(u, delta, delta_bias)
    parts = [part.to(wide.dtype) for part in (A, B, C)]
    scanned, _ = _scan(step * wide, step, *parts)
    return _finished(scanned, wide, D, z).to(u.dtype)


def _prepared(u: Tensor, delta: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """u and the step sizes, in fp32 at least."""
    wide = u.to(torch.promote_types(u.dtype, torch.float32))
    step = delta.to(wide.dtype)
    return wide, functional.softplus(step if bias is None else step + bias)


def _finished(scanned: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        scanned = scanned + D * u
    return scanned if z is None else scanned * functional.silu(z.to(scanned.dtype))


@cache
def _kernel() -> Callable[..., Tensor] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    kernel: Callable[..., Tensor] = selective_scan_fn
    return kernel


def _by_kernel(
    kernel: Callable[..., Tensor],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """mamba_ssm has the length last, wants one type for what has a length and fp32 for the rest."""
    long = [part if part is None else part.to(u.dtype).transpose(1, 2).contiguous() for part in (u, delta, B, C, z)]
    rest = [part if part is None else part.float() for part in (A, D, bias)]
    scanned = kernel(long[0], long[1], rest[0], long[2], long[3], rest[1], long[4], rest[2], delta_softplus=True)
    return scanned.transpose(1, 2)


# The recurrence itself is an operation of torch's, so that tracing on fake or meta tensors sees one operation with its
# shapes, and not thousands.


@torch.library.custom_op(
    "fieldtune::selective_scan",
    mutates_args=(),
    schema="(Tensor drive, Tensor step, Tensor rates, Tensor entry, Tensor reading) -> (Tensor, Tensor)",
)
def _scan(drive: Tensor, step: Tensor, rates: Tensor, entry: Tensor, reading: Tensor) -> tuple[Tensor, Tensor]:
    """drive and step [batch, length, channels], rates [channels, states], entry and reading [batch, length, states] ->
    output [batch, length, channels], and the state before each chunk [chunks, batch, states, channels]."""
    output = torch.empty_like(step, memory_format=torch.contiguous_format)
    starts = _starts(step, rates)
    starts[0] = 0
    rates_last = rates.t().contiguous()
    decay, states = _workspaces(starts, 2)
    with torch.autocast(step.device.type, enabled=False):
        for number, window in enumerate(_windows(step)):
            length = window.stop - window.start
            here, a = states[:length], decay[:length]
            s, x, b, c = (_part(part, window) for part in (step, drive, entry, reading))
            _fill(a, here, s, x, b, rates_last, starts[number])
            output[:, window] = torch.matmul(c[:, :, None], here)[:, :, 0].transpose(0, 1)
            if number + 1 < len(starts):
                starts[number + 1] = here[-1]
    return output, starts


@torch.library.custom_op(
    "fieldtune::selective_scan_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor starts, Tensor drive, Tensor step, Tensor rates, Tensor entry, Tensor reading) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _scan_backward(
    gradient: Tensor, starts: Tensor, drive: Tensor, step: Tensor, rates: Tensor, entry: Tensor, reading: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of drive, step, rates, entry and reading, from that of the output."""
    like = (drive, step, entry, reading)
    of_drive, of_step, of_entry, of_reading = (
        torch.empty_like(part, memory_format=torch.contiguous_format) for part in like
    )
    rates_last = rates.t().contiguous()
    of_rates = torch.zeros_like(rates_last)
    decay, states, adjoint = _workspaces(starts, 3)
    back = torch.zeros_like(starts[0])  # the gradient that reaches a state from the token after it
    with torch.autocast(step.device.type, enabled=False):
        for number, window in reversed(list(enumerate(_windows(step)))):
            length = window.stop - window.start
            a, here, g = decay[:length], states[:length], adjoint[:length]
            s, x, b, c = (_part(part, window) for part in (step, drive, entry, reading))
            dy = _part(gradient, window)
            _fill(a, here, s, x, b, rates_last, starts[number])
            # Products and sums: for these shapes a matrix product is several times as slow.
            of_reading[:, window] = torch.mul(here, dy[:, :, None], out=g).sum(-1).transpose(0, 1)
            torch.mul(c[..., None], dy[:, :, None], out=g)
            arriving = back
            for at, into in zip(reversed(a.unbind(0)), reversed(g.unbind(0)), strict=True):
                into.add_(arriving)
                arriving = at.mul_(into)
            back.copy_(arriving)
            of_drive[:, window] = torch.matmul(b[:, :, None], g)[:, :, 0].transpose(0, 1)
            # a now holds what reaches the state before; times that state it is the gradient of the exponent.
            a[0].mul_(starts[number])
            a[1:].mul_(here[:-1])
            of_entry[:, window] = torch.mul(g, x[:, :, None], out=here).sum(-1).transpose(0, 1)
            torch.mul(a, s[:, :, None], out=g)
            of_rates.add_(g.sum((0, 1)))
            of_step[:, window] = a.mul_(rates_last).sum(2).transpose(0, 1)
    return of_drive, of_step, of_rates.t().contiguous(), of_entry, of_reading


def _windows(step: Tensor) -> list[slice]:
    length = step.shape[1]
    return [slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]


def _part(sequence: Tensor, window: slice) -> Tensor:
    """A chunk with the tokens first: [tokens, batch, ...]."""
    return sequence[:, window].transpose(0, 1)


def _starts(step: Tensor, rates: Tensor) -> Tensor:
    batch, length, channels = step.shape
    return step.new_empty(-(-length // CHUNK), batch, rates.shape[1], channels)


def _workspaces(starts: Tensor, number: int) -> Tensor:
    """Room for the states of a chunk, `number` times: [number, CHUNK, batch, states, channels]."""
    return starts.new_empty(number, CHUNK, *starts.shape[1:])


def _fill(
    decay: Tensor, states: Tensor, step: Tensor, drive: Tensor, entry: Tensor, rates_last: Tensor, before: Tensor
) -> None:
    """Decays and states of a chunk, [tokens, batch, states, channels], into `decay` and `states`."""
    torch.mul(step[:, :, None], rates_last, out=decay)
    decay.exp_()
    torch.mul(entry[..., None], drive[:, :, None], out=states)
    for a, state in zip(decay.unbind(0), states.unbind(0), strict=True):
        before = state.addcmul_(a, before)


@_scan.register_fake
def _(drive: Tensor, step: Tensor, rates: Tensor, entry: Tensor, reading: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(step, memory_format=torch.contiguous_format), _starts(step, rates)


@_scan_backward.register_fake
def _(
    gradient: Tensor, starts: Tensor, drive: Tensor, step: Tensor, rates: Tensor, entry: Tensor, reading: Tensor
) -> tuple[Tensor, ...]:
    like = (drive, step, rates, entry, reading)
    return tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in like)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], *inputs)


def _differentiate(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 5
    gradients: tuple[Tensor, ...] = _scan_backward(gradient, *ctx.saved_tensors)
    return gradients


_scan.register_autograd(_differentiate, setup_context=_keep)
