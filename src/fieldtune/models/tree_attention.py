"""Exact attention over rows laid out as a tree: each token sees the segments above it and its own up to itself.

On a CPU the segments are done one after the other (`models.block_attention`). Elsewhere torch's attention with a mask
is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fieldtune.models.block_attention import BlockAttention
from fieldtune.models.layout import Layout
from fieldtune.models.soft_caps import capped_attention

NAME = "fieldtune"  # of this attention among those of transformers
BLOCKS_ON = "cpu"  # the device type on which blocks are used; others use the mask


class Trunk:
    """Keys and values of a pass that others continue, layer by layer, and the gradients that those send back.

    Their sum is backpropagated once, through `graft`. Leaves are at least fp32, so that it is exact in bf16 too.
    """

    def __init__(self) -> None:
        self.made: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys, values [1, heads, tokens, width]
        self.leaves: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        if layer in self.made:  # computed again for the backward pass
            return
        self.made[layer] = (key, value)
        wide = torch.promote_types(key.dtype, torch.float32)
        self.leaves[layer] = (_leaf(key, wide), _leaf(value, wide))

    def graft(self, loss: Tensor) -> Tensor:
        """`loss`, whose backward also carries the gradients that were collected at the leaves."""
        made, leaves = [], []
        for layer, pair in self.made.items():
            for tensor, leaf in zip(pair, self.leaves[layer], strict=True):
                if leaf.grad is not None:
                    made.append(tensor)
                    leaves.append(leaf)
        grafted: Tensor = _Graft.apply(loss, leaves, *made)
        return grafted


def _leaf(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)


class _Graft(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, leaves: list[Tensor], *made: Tensor) -> Tensor:
        ctx.leaves, ctx.dtypes = leaves, [tensor.dtype for tensor in made]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        grads = [leaf.grad.to(dtype) for leaf, dtype in zip(ctx.leaves, ctx.dtypes, strict=True)]
        return gradient, None, *grads


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    above: tuple[Tensor, Tensor] | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """Attention of packed tokens. query [1, heads, tokens, width], key and value [1, groups, tokens, width], `above`:
    the trunk's keys and values, `seen`: the layout's mask, with which its blocks are not used. Returns
    [1, tokens, heads, width]."""
    # In mixed precision a layer may turn queries and keys by fp32 tables: attention's inputs are of one kind again.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if seen is None:
        packed: Tensor = BlockAttention.apply(query, key, value, *(above or (None, None)), layout, scale)
        return packed
    if above is not None:
        key = torch.cat([above[0].to(key.dtype), key], dim=2)
        value = torch.cat([above[1].to(value.dtype), value], dim=2)
    # The memory-efficient kernel of GPUs takes a mask, but no groups of heads.
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
    return out.transpose(1, 2)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    trunk: Trunk | None = None,
    keep: Trunk | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: a packed pass if `layout` is given, else its own `sdpa`.

    trunk: what this pass continues, where its layout says so. keep: what other passes will continue, to be filled.
    """
    if kwargs.get("softcap") is not None:
        scale, cap = scaling or query.shape[-1] ** -0.5, kwargs["softcap"]
        return capped_attention(module, query, key, value, attention_mask, cap, scale, layout, trunk, keep, dropout)
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out: Tensor
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out, None
    if dropout:
        raise RuntimeError("attention with dropout cannot be packed exactly")
    above = trunk.leaves[module.layer_idx] if trunk is not None and layout.trunk else None
    if keep is not None:
        keep.keep(module.layer_idx, key, value)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    seen = attention_mask if attention_mask is not None and attention_mask.numel() else None
    return attend(query, key, value, layout, scale, above, seen), None


def mask_for(layout: Layout, tokens: int, trunk: Trunk | None, device: torch.device) -> Tensor | None:
    """The mask [1, 1, tokens, trunk's and own tokens] of a pass where there is no kernel for its blocks, else None."""
    if device.type == BLOCKS_ON:
        return None
    before = next(iter(trunk.leaves.values()))[0].shape[2] if trunk is not None and layout.trunk else 0
    return layout.mask(tokens, before, device)[None, None]


def register() -> None:
    """Make this attention known to transformers, under `NAME`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
