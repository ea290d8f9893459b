"""Cross-entropy of hidden states at labels, a chunk of positions at a time: the logits of all are never held.

Where the output head is a plain linear layer, each chunk's gradients are computed in the forward pass, while its
probabilities are there, so that no logits are computed twice (the idea of Liger Kernel's fused linear cross-entropy,
arXiv 2410.10989). Other heads get their logits again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

POSITIONS_PER_CHUNK = 512  # logits held at a time: 512 x vocabulary; more measures no faster


def summed_cross_entropy(
    hidden: Tensor, head: nn.Module, targets: Tensor, counts: Tensor, *, fused: bool = True
) -> Tensor:
    """Sum of -count * log p(target), at least fp32. hidden [labels, width], targets [labels], counts [labels].

    fused: a plain head may be taken apart. Without, the head is called once, also for no label at all: ranks that share
    out its weights must all call it equally often, so the logits of all labels are held while gradients are made.
    """
    if not fused:
        return _chunk_loss(hidden, head, targets, counts)
    if len(targets) == 0:
        return hidden.sum() * 0.0
    if not torch.is_grad_enabled():
        return (losses(hidden, head, targets) * counts).sum()
    if type(head) is nn.Linear and head.bias is None:
        return _Fused.apply(hidden, head.weight, targets, counts)
    chunks = _chunks(hidden, targets, counts)
    sums = [checkpoint(_chunk_loss, part, head, *labels, use_reentrant=False) for part, *labels in chunks]
    return torch.stack(sums).sum()


def losses(hidden: Tensor, head: nn.Module, targets: Tensor, *, fused: bool = True) -> Tensor:
    """-log p(target) of each label [labels], without gradients. fused: see `summed_cross_entropy`."""
    with torch.no_grad():
        if not fused:
            return _losses(hidden, head, targets)
        return torch.cat([_losses(part, head, labels) for part, labels in _chunks(hidden, targets)])


def _losses(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    return functional.cross_entropy(_wide(head(hidden)), targets, reduction="none")


def _chunk_loss(hidden: Tensor, head: nn.Module, targets: Tensor, counts: Tensor) -> Tensor:
    return (_losses(hidden, head, targets) * counts).sum()


def _wide(logits: Tensor) -> Tensor:
    """At least fp32: reduced precision is for the matrix product, a sum over a vocabulary is not."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, POSITIONS_PER_CHUNK) for tensor in tensors), strict=True)


class _Fused(torch.autograd.Function):
    """The loss over logits = hidden @ weight.T, whose gradients are ready before anyone asks for them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        device = hidden.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        dtype = hidden.dtype if half is None or hidden.dtype is torch.float64 else half
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        with torch.autocast(device, enabled=False):
            start, table = 0, weight.to(dtype)
            total = hidden.new_zeros((), dtype=torch.promote_types(dtype, torch.float32))
            for part, labels, times in _chunks(hidden, targets, counts):
                loss, by_logits = _probed(part.to(dtype), table, labels, times)
                total += loss
                if by_hidden is not None:
                    torch.mul(by_logits @ table, times[:, None], out=by_hidden[start : start + len(part)])
                if by_weight is not None:
                    by_weight += by_logits.t() @ (part * times[:, None]).to(dtype)
                start += len(part)
        ctx.ready = by_hidden, by_weight
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ready, ctx.ready = ctx.ready, ()  # scaled in place, so they serve once
        by_hidden, by_weight = (None if by is None else by.mul_(gradient) for by in ready)
        return by_hidden, by_weight, None, None


def _probed(hidden: Tensor, table: Tensor, targets: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """A chunk's loss, and its gradient with respect to the logits where each label counts once."""
    logits = hidden @ table.t()
    log_p = torch.log_softmax(_wide(logits), dim=-1)
    at = targets[:, None]
    loss = -(log_p.gather(1, at)[:, 0] * counts).sum()
    by_logits = log_p.exp_()
    by_logits.scatter_add_(1, at, by_logits.new_full((1, 1), -1.0).expand_as(at))
    return loss, by_logits.to(hidden.dtype)
