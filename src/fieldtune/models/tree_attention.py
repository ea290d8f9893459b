"""Exact attention over rows laid out as a tree: each token sees the segments above it and its own up to itself.

Every segment's tokens attend causally to the segment, and everything below a segment attends to all of it. Each of
these blocks is one call of a flash kernel; blocks with the same queries are merged by their log-sum-exp, and each
block's gradients come from the kernel's backward given the merged output and log-sum-exp (as in ring attention,
arXiv 2310.01889). So no token is padded and no mask is stored. Where there is no such kernel, one with a mask is used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fieldtune.models.soft_caps import capped_attention

NAME = "fieldtune"  # of this attention among those of transformers
BLOCKS_ON = "cpu"  # the device type whose flash kernel gives its log-sum-exp; others use the mask

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class Layout(NamedTuple):
    """Blocks of a packed forward pass, as ranges of its own tokens and of the trunk's.

    causal: (a, b), tokens [a, b) attend causally to each other. full: (a, b, c, d), tokens [a, b) attend to all of
    [c, d). trunk: the same with [c, d) in the trunk, a pass that was computed before.
    """

    causal: tuple[tuple[int, int], ...]
    full: tuple[tuple[int, int, int, int], ...] = ()
    trunk: tuple[tuple[int, int, int, int], ...] = ()

    def mask(self, tokens: int, trunk_tokens: int, device: torch.device) -> Tensor:
        """Which token sees which: bool [tokens, trunk_tokens + tokens]."""
        seen = torch.zeros(tokens, trunk_tokens + tokens, dtype=torch.bool, device=device)
        for a, b in self.causal:
            seen[a:b, trunk_tokens + a : trunk_tokens + b] = True
        seen[:, trunk_tokens:].tril_()
        for a, b, c, d in self.full:
            seen[a:b, trunk_tokens + c : trunk_tokens + d] = True
        for a, b, c, d in self.trunk:
            seen[a:b, c:d] = True
        return seen


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
    if seen is None:
        packed: Tensor = _TreeAttention.apply(query, key, value, *(above or (None, None)), layout, scale)
        return packed
    if above is not None:
        key = torch.cat([above[0].to(key.dtype), key], dim=2)
        value = torch.cat([above[1].to(value.dtype), value], dim=2)
    # The memory-efficient kernel of GPUs takes a mask, but no groups of heads.
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
    return out.transpose(1, 2)


class _TreeAttention(torch.autograd.Function):
    """Works on [groups, heads a group, tokens, width]: heads of a group share keys and values by a stride of 0."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        trunk_key: Tensor | None,
        trunk_value: Tensor | None,
        layout: Layout,
        scale: float,
    ) -> Tensor:
        _, heads, tokens, width = query.shape
        groups = key.shape[1]
        q = query[0].unflatten(0, (groups, heads // groups))
        out = query.new_empty(tokens, heads, width)
        o = out.permute(1, 0, 2).unflatten(0, (groups, heads // groups))
        wide = torch.promote_types(query.dtype, torch.float32)
        lse = query.new_empty(groups, heads // groups, tokens, dtype=wide)
        for a, b in layout.causal:
            k, v = _part(key, a, b, q), _part(value, a, b, q)
            o[:, :, a:b], lse[:, :, a:b] = flash(q[:, :, a:b], k, v, 0.0, True, scale=scale)
        for a, b, k, v in _blocks(layout, key, value, trunk_key, trunk_value, q):
            _merge(o[:, :, a:b], lse[:, :, a:b], *flash(q[:, :, a:b], k, v, 0.0, False, scale=scale))
        ctx.save_for_backward(query, key, value, trunk_key, trunk_value, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out.unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, trunk_key, trunk_value, out, lse = ctx.saved_tensors
        layout, scale = ctx.layout, ctx.scale
        groups, shared = lse.shape[:2]
        q = query[0].unflatten(0, (groups, shared))
        o = out.permute(1, 0, 2).unflatten(0, (groups, shared))
        g = gradient[0].permute(1, 0, 2).unflatten(0, (groups, shared))
        # Laid out as the projections made them: [tokens, heads, width].
        dq = torch.empty_like(out).permute(1, 0, 2).unflatten(0, (groups, shared))
        dk, dv = _zeros_like_made(key), _zeros_like_made(value)
        dtk = torch.zeros_like(trunk_key) if trunk_key is not None else None
        dtv = torch.zeros_like(trunk_value) if trunk_value is not None else None

        def block(a: int, b: int, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
            part = slice(a, b)
            return flash_backward(  # type: ignore[no-any-return]
                g[:, :, part], q[:, :, part], k, v, o[:, :, part], lse[:, :, part], 0.0, causal, scale=scale
            )

        for a, b in layout.causal:
            dq[:, :, a:b], gk, gv = block(a, b, _part(key, a, b, q), _part(value, a, b, q), True)
            dk[0, :, a:b], dv[0, :, a:b] = gk.sum(1), gv.sum(1)
        for a, b, c, d in layout.full:
            gq, gk, gv = block(a, b, _part(key, c, d, q), _part(value, c, d, q), False)
            dq[:, :, a:b] += gq
            dk[0, :, c:d] += gk.sum(1)
            dv[0, :, c:d] += gv.sum(1)
        for a, b, c, d in layout.trunk:
            assert dtk is not None and dtv is not None
            gq, gk, gv = block(a, b, _part(trunk_key, c, d, q), _part(trunk_value, c, d, q), False)
            dq[:, :, a:b] += gq
            dtk[0, :, c:d] += gk.sum(1)
            dtv[0, :, c:d] += gv.sum(1)
        return dq.flatten(0, 1).unsqueeze(0), dk, dv, dtk, dtv, None, None


def _part(tensor: Tensor, a: int, b: int, like: Tensor) -> Tensor:
    """Tokens [a, b) of keys or values, for each head of the group, without a copy."""
    return tensor[0, :, None, a:b].to(like.dtype).expand(-1, like.shape[1], -1, -1)


def _blocks(
    layout: Layout, key: Tensor, value: Tensor, trunk_key: Tensor | None, trunk_value: Tensor | None, q: Tensor
) -> Any:
    for a, b, c, d in layout.full:
        yield a, b, _part(key, c, d, q), _part(value, c, d, q)
    for a, b, c, d in layout.trunk:
        assert trunk_key is not None and trunk_value is not None
        yield a, b, _part(trunk_key, c, d, q), _part(trunk_value, c, d, q)


def _merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """Two softmax averages over different keys become, in place, the one over both."""
    both = torch.logaddexp(lse, more_lse)
    out.mul_((lse - both).exp_().unsqueeze(-1)).add_(more * (more_lse - both).exp_().unsqueeze(-1))
    lse.copy_(both)


def _zeros_like_made(tensor: Tensor) -> Tensor:
    """Zeros of a [1, heads, tokens, width] tensor that lie as [tokens, heads, width]."""
    _, heads, tokens, width = tensor.shape
    return tensor.new_zeros(1, tokens, heads, width).transpose(1, 2)


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
