"""Attention of packed tokens on a CPU, by plain matrix products.

A segment's queries go through in blocks of some rows. Each block is one softmax over exactly the keys that it sees:
those of the segments above, gathered once a segment, and its own. So no token is padded, no mask is stored, and no
product is computed that a mask would throw away but for half a block at the diagonal. The backward pass computes the
probabilities again (as FlashAttention does, arXiv 2205.14135), so that only queries, keys and values are kept. This
measures as fast as torch's flash kernel in fp32, and more than twice as fast in bf16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldtune.models.layout import Layout, Range, Span

BLOCK = 128  # queries of a block: 64 to 256 measure alike, more compute too much above the diagonal


class _Segment(NamedTuple):
    """A segment [start, end) of a pass, and what stands above it, in the trunk and in the pass itself."""

    start: int
    end: int
    trunk: tuple[Range, ...]
    own: tuple[Range, ...]

    def gathered(self, own: Tensor, trunk: Tensor | None) -> Tensor:
        """What the segment's last token sees of keys or values [groups, keys, width], in order; its own come last."""
        parts = [own[0, :, a:b] for a, b in (*self.own, (self.start, self.end))]
        if self.trunk:
            assert trunk is not None
            parts = [trunk[0, :, a:b].to(own.dtype) for a, b in self.trunk] + parts
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def scattered(self, gradient: Tensor, own: Tensor, trunk: Tensor | None) -> None:
        """Add the gradient of what was `gathered` to those of its places."""
        start = 0
        for to, ranges in ((trunk, self.trunk), (own, (*self.own, (self.start, self.end)))):
            for a, b in ranges:
                assert to is not None
                to[0, :, a:b] += gradient[:, start : start + b - a]
                start += b - a

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Blocks of its queries, as places in the pass, with the keys that they see, as places in what was gathered."""
        above = sum(b - a for a, b in (*self.trunk, *self.own))
        for first in range(self.start, self.end, BLOCK):
            last = min(first + BLOCK, self.end)
            yield slice(first, last), slice(0, above + last - self.start)


@lru_cache(maxsize=32)  # every layer asks the same
def _segments(layout: Layout) -> tuple[_Segment, ...]:
    def above(spans: Sequence[Span], start: int) -> tuple[Range, ...]:
        return tuple((c, d) for a, b, c, d in spans if a <= start < b)

    return tuple(_Segment(a, b, above(layout.trunk, a), above(layout.full, a)) for a, b in layout.causal)


class BlockAttention(torch.autograd.Function):
    """Attention of a packed pass, see `tree_attention.attend`.

    Works on [groups, heads a group, tokens, width]; a group's heads share keys and values."""

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
        groups = (key.shape[1], heads // key.shape[1])
        q = query[0].unflatten(0, groups)
        out = query.new_empty(tokens, heads, width)  # as the projection after it wants it
        o = out.permute(1, 0, 2).unflatten(0, groups)
        ahead = _ahead(query)
        with torch.autocast(query.device.type, enabled=False):
            for segment in _segments(layout):
                k, v = segment.gathered(key, trunk_key), segment.gathered(value, trunk_value)
                for block, keys in segment.blocks():
                    p = _probabilities(_rows(q[:, :, block], scale), k[:, keys], groups[1], ahead)
                    o[:, :, block] = torch.bmm(p, v[:, keys]).unflatten(1, (groups[1], -1))
        ctx.save_for_backward(query, key, value, trunk_key, trunk_value)
        ctx.layout, ctx.scale = layout, scale
        return out.unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, trunk_key, trunk_value = ctx.saved_tensors
        groups = (key.shape[1], query.shape[1] // key.shape[1])
        q = query[0].unflatten(0, groups)
        g = gradient[0].permute(1, 0, 2).unflatten(0, groups)
        dq = torch.empty_like(gradient[0]).permute(1, 0, 2).unflatten(0, groups)
        dk, dv = _zeros_like_made(key), _zeros_like_made(value)
        dtk = torch.zeros_like(trunk_key) if trunk_key is not None else None
        dtv = torch.zeros_like(trunk_value) if trunk_value is not None else None
        ahead = _ahead(query)
        for segment in _segments(ctx.layout):
            k, v = segment.gathered(key, trunk_key), segment.gathered(value, trunk_value)
            gk, gv = torch.zeros_like(k, dtype=dk.dtype), torch.zeros_like(v, dtype=dv.dtype)
            for block, keys in segment.blocks():
                rows, outward = _rows(q[:, :, block], ctx.scale), _rows(g[:, :, block])
                p = _probabilities(rows, k[:, keys], groups[1], ahead)
                gv[:, keys] += torch.bmm(p.transpose(1, 2), outward)
                by_p = torch.bmm(outward, v[:, keys].transpose(1, 2))
                by_scores = torch._softmax_backward_data(by_p, p, -1, p.dtype)
                gk[:, keys] += torch.bmm(by_scores.transpose(1, 2), rows)
                by_rows = torch.bmm(by_scores, k[:, keys]).mul_(ctx.scale)
                dq[:, :, block] = by_rows.unflatten(1, (groups[1], -1))
            segment.scattered(gk, dk, dtk)
            segment.scattered(gv, dv, dtv)
        return dq.flatten(0, 1).unsqueeze(0), dk.to(key.dtype), dv.to(value.dtype), dtk, dtv, None, None


def _rows(block: Tensor, scale: float = 1.0) -> Tensor:
    """[groups, heads a group, tokens, width] -> [groups, heads a group x tokens, width], a copy."""
    return (block * scale if scale != 1.0 else block).flatten(1, 2)


def _ahead(like: Tensor) -> Tensor:
    """Which keys of a block at the diagonal lie ahead of which queries."""
    return torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=like.device).triu(1)


def _probabilities(rows: Tensor, k: Tensor, heads: int, ahead: Tensor) -> Tensor:
    """Softmax of a block's scores [groups, heads x tokens, keys]; the last keys are those of the tokens themselves."""
    scores = torch.bmm(rows, k.transpose(1, 2))
    tokens = rows.shape[1] // heads
    scores.unflatten(1, (heads, tokens))[..., -tokens:].masked_fill_(ahead[:tokens, :tokens], -torch.inf)
    return torch._softmax(scores, -1, False)


def _zeros_like_made(tensor: Tensor) -> Tensor:
    """Zeros [1, heads, tokens, width], at least fp32, that lie as [tokens, heads, width]."""
    _, heads, tokens, width = tensor.shape
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return tensor.new_zeros(1, tokens, heads, width, dtype=wide).transpose(1, 2)
