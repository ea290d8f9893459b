"""Which token of a packed forward pass sees which: segments of a tree, laid out one after the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Range = tuple[int, int]
Span = tuple[int, int, int, int]


class Layout(NamedTuple):
    """Blocks of a packed forward pass, as ranges of its own tokens and of the trunk's.

    causal: the segments (a, b), whose tokens [a, b) attend causally to each other. full: (a, b, c, d), tokens [a, b),
    which are whole segments, attend to all of [c, d). trunk: the same with [c, d) in the trunk, a pass that was
    computed before.
    """

    causal: tuple[Range, ...]
    full: tuple[Span, ...] = ()
    trunk: tuple[Span, ...] = ()

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

    def longest(self) -> Layout:
        """The segment that sees most keys, alone."""

        def over(start: int) -> tuple[tuple[Span, ...], ...]:
            return tuple(tuple(span for span in spans if span[0] <= start < span[1]) for spans in self[1:])

        def keys(segment: Range) -> int:
            return segment[1] - segment[0] + sum(d - c for spans in over(segment[0]) for _, _, c, d in spans)

        segment = max(self.causal, key=keys)
        return Layout((segment,), *over(segment[0]))
