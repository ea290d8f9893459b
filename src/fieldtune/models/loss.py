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

from fieldtune.models.soft_caps import output_head
from fieldtune.models.tree_attention import NAME, Layout, Trunk, mask_for, register

POSITIONS_PER_CHUNK = 1024  # logits held at a time: 1,024 x vocabulary


class LanguageModelLoss(nn.Module):
    """Wraps a causal language model of transformers so that forward gives (loss sum, supervised tokens)."""

    def __init__(self, model: nn.Module, *, fused: bool = True) -> None:
        """fused: layers are exchanged for those of `models.fused`. The model is changed in place."""
        super().__init__()
        self.model = model
        if fused:
            from fieldtune.models.fused import fuse

            fuse(model)
        register()
        unwrapped(model).set_attn_implementation(NAME)

    def forward(
        self,
        ids: Tensor,
        where: Tensor,
        targets: Tensor,
        counts: Tensor,
        positions: Tensor | None = None,
        layout: Layout | None = None,
        trunk: Trunk | None = None,
        keep: Trunk | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A micro-batch (see `data.batches.MicroBatch`). keep: filled by a window's trunk, which its micro-batches
        then read as `trunk`.

        Returns the loss summed over the supervised tokens (nats, fp32) and their number.
        """
        at_labels, head = self._hidden_at(ids, where, positions, layout, trunk, keep)
        return summed_cross_entropy(at_labels, head, targets, counts), counts.sum()

    def token_losses(
        self, ids: Tensor, where: Tensor, targets: Tensor, positions: Tensor | None, layout: Layout | None, **_: Any
    ) -> Tensor:
        """The loss of each label [labels], without gradients."""
        at_labels, head = self._hidden_at(ids, where, positions, layout)
        parts = zip(torch.split(at_labels, POSITIONS_PER_CHUNK), torch.split(targets, POSITIONS_PER_CHUNK), strict=True)
        return torch.cat([_losses(part, head, labels) for part, labels in parts])

    def _hidden_at(
        self,
        ids: Tensor,
        where: Tensor,
        positions: Tensor | None,
        layout: Layout | None,
        trunk: Trunk | None = None,
        keep: Trunk | None = None,
    ) -> tuple[Tensor, nn.Module]:
        """The last hidden states at the labels [labels, width], and the head that makes logits of them."""
        inner = unwrapped(self.model)
        packed: dict[str, Any] = {}
        if layout is not None:
            seen = mask_for(layout, ids.shape[1], trunk, ids.device)
            # transformers takes a mask of four dimensions as it is; without any it would make its own.
            mask = ids.new_empty(1, 1, 1, 0) if seen is None else seen
            packed = {"position_ids": positions, "attention_mask": mask, "layout": layout, "trunk": trunk}
            packed["keep"] = keep
        body = getattr(inner, inner.base_model_prefix)
        hidden = body(input_ids=ids, use_cache=False, **packed).last_hidden_state
        return hidden.flatten(0, 1).index_select(0, where), output_head(inner)


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper (its adapter layers stay in place), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def summed_cross_entropy(hidden: Tensor, head: nn.Module, targets: Tensor, counts: Tensor) -> Tensor:
    """Sum of -count * log p(target) in fp32. hidden [labels, width], targets [labels], counts [labels].

    More than one chunk: logits are computed again in the backward pass, so that one chunk's are held at a time.
    """
    if len(targets) == 0:
        return hidden.sum() * 0.0
    parts = list(zip(*(torch.split(tensor, POSITIONS_PER_CHUNK) for tensor in (hidden, targets, counts)), strict=True))
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.stack([_chunk_loss(part, head, *labels) for part, *labels in parts]).sum()
    sums = [checkpoint(_chunk_loss, part, head, *labels, use_reentrant=False) for part, *labels in parts]
    return torch.stack(sums).sum()


def _chunk_loss(hidden: Tensor, head: nn.Module, targets: Tensor, counts: Tensor) -> Tensor:
    return (_losses(hidden, head, targets) * counts).sum()


def _losses(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    logits = head(hidden)
    # Reduced precision is for the matrix product; a sum over a vocabulary is not.
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, targets, reduction="none")
