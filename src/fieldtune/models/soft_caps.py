"""Soft caps, cap * tanh(x / cap), on attention scores and on logits (Gemma 2, arXiv 2408.00118).

No kernel of torch's does them, so the scores are there in full: tokens x tokens a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fieldtune.models.layout import Layout
    from fieldtune.models.tree_attention import Trunk


def capped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softcap: float,
    scale: float,
    layout: Layout | None = None,
    trunk: Trunk | None = None,
    keep: Trunk | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, None]:
    """Attention with capped scores, packed (with a layout) or not: query [rows, heads, tokens, width], key and value
    [rows, groups, tokens, width], mask: bool or additive [rows, 1, tokens, keys], None or empty: causal, or the
    layout's. Returns [rows, tokens, heads, width]."""
    if keep is not None:
        keep.keep(module.layer_idx, key, value)
    if layout is not None and trunk is not None and layout.trunk:
        above = trunk.leaves[module.layer_idx]
        key, value = (torch.cat([a.to(b.dtype), b], dim=2) for a, b in zip(above, (key, value), strict=True))
    tokens, keys = query.shape[2], key.shape[2]
    if layout is not None and (mask is None or not mask.numel()):
        mask = layout.mask(tokens, keys - tokens, query.device)
    elif mask is None:
        mask = torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril(keys - tokens)
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
    # Padding on the left sees nothing; of infinities its softmax would be undefined, and spoil what others see.
    hidden = torch.finfo(scores.dtype).min
    seen = scores.masked_fill(~mask, hidden) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(seen, dim=-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(value.dtype)
    return (torch.dropout(weights, dropout, train=True) @ value).transpose(1, 2).contiguous(), None


class CappedHead(nn.Module):
    """An output head whose logits are capped."""

    def __init__(self, head: nn.Module, cap: float) -> None:
        super().__init__()
        self.head, self.cap = head, cap

    def forward(self, hidden: Tensor) -> Tensor:
        return self.cap * torch.tanh(self.head(hidden) / self.cap)


def output_head(model: Any) -> nn.Module:
    """What makes a model's logits of its last hidden states."""
    head: nn.Module = model.get_output_embeddings()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return head if cap is None else CappedHead(head, cap)
