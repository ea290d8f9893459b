"""The loss: cross-entropy summed over supervised tokens, with logits only where a label is.

The network returns (loss sum, supervised tokens) instead of a mean: only the sum over a whole optimizer step divided
by its number of tokens is the gradient of one big batch, whatever the rows' lengths (transformers PR 34191).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

POSITIONS_PER_CHUNK = 1024  # logits held at a time: 1,024 x vocabulary


class LanguageModelLoss(nn.Module):
    """Wraps a causal language model of transformers so that forward gives (loss sum, supervised tokens)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, where: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """ids [rows, length], where [supervised], targets [supervised] (see `data.batches.MicroBatch`).

        Returns the loss summed over the supervised tokens (nats, fp32) and their number.
        """
        at_labels, head = self._hidden_at(ids, where)
        return summed_cross_entropy(at_labels, head, targets), where.new_tensor(len(where))

    def token_losses(self, ids: Tensor, where: Tensor, targets: Tensor) -> Tensor:
        """The loss of each supervised token [supervised], without gradients."""
        at_labels, head = self._hidden_at(ids, where)
        parts = zip(torch.split(at_labels, POSITIONS_PER_CHUNK), torch.split(targets, POSITIONS_PER_CHUNK), strict=True)
        return torch.cat([_chunk_loss(part, head, labels, "none") for part, labels in parts])

    def _hidden_at(self, ids: Tensor, where: Tensor) -> tuple[Tensor, nn.Module]:
        """The last hidden states at the labels [supervised, width], and the head that makes logits of them."""
        inner = unwrapped(self.model)
        hidden = getattr(inner, inner.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
        return hidden.flatten(0, 1).index_select(0, where), inner.get_output_embeddings()


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper (its adapter layers stay in place), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def summed_cross_entropy(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    """Sum of -log p(target) in fp32. hidden [positions, width], targets [positions].

    More than one chunk: logits are computed again in the backward pass, so that one chunk's are held at a time.
    """
    if len(targets) == 0:
        return hidden.sum() * 0.0
    chunks = list(zip(torch.split(hidden, POSITIONS_PER_CHUNK), torch.split(targets, POSITIONS_PER_CHUNK), strict=True))
    if len(chunks) == 1:
        return _chunk_loss(hidden, head, targets)
    sums = [
        checkpoint(_chunk_loss, part, head, labels, use_reentrant=False)
        if torch.is_grad_enabled()
        else _chunk_loss(part, head, labels)
        for part, labels in chunks
    ]
    return torch.stack(sums).sum()


def _chunk_loss(hidden: Tensor, head: nn.Module, targets: Tensor, reduction: str = "sum") -> Tensor:
    logits = head(hidden)
    # Reduced precision is for the matrix product; a sum over a vocabulary is not.
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, targets, reduction=reduction)
