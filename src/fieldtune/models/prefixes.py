"""Keys and values of earlier prompts, for prompts that begin like one of them: a system text, rules, a schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fieldtune.data.trie import Ids, common_prefix
from fieldtune.models.decode import Prompt, cache_layers

LEAST = 16  # tokens in common; for fewer a copy is not worth it


@dataclass(frozen=True, eq=False, slots=True)
class _Kept:
    ids: Ids
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]]  # keys and values [1, heads, tokens, features]


class Prefixes:
    """The beginnings of the prompts answered last.

    A token's keys and values depend on the tokens before it alone. So a prompt that takes them over gets the logits it
    would get without, but for rounding (its other tokens pass through the model in other groups). tokens: kept at most,
    over all prompts; 0: none.
    """

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._kept: list[_Kept] = []  # the one used last is the last

    @property
    def tokens(self) -> int:
        """How many are kept now."""
        return sum(len(kept.ids) for kept in self._kept)

    @torch.inference_mode()
    def begin(self, prompt: Prompt) -> int:
        """Give a prompt that has not begun the most that a kept one has in common with it; how many tokens that is."""
        if not self._kept:
            return 0
        ids = np.array(prompt.ids[:-1], dtype=np.int32)  # without the last: its logits are wanted
        longest = max(self._kept, key=lambda kept: common_prefix(kept.ids, ids))
        count = common_prefix(longest.ids, ids)
        if count < LEAST:
            return 0
        for number, (keys, values) in enumerate(longest.layers):
            prompt.cache.update(keys[:, :, :count], values[:, :, :count], number)
        prompt.done = count
        self._kept.remove(longest)
        self._kept.append(longest)
        return count

    @torch.inference_mode()
    def keep(self, prompt: Prompt) -> None:
        """Take over a prompt that is through the model, as far as there is room; the ones used least lately go."""
        ids = np.array(prompt.ids[: self._room], dtype=np.int32)
        if len(ids) < LEAST or any(common_prefix(kept.ids, ids) == len(ids) for kept in self._kept):
            return
        cut = len(ids) < len(prompt.ids)
        pairs: list[tuple[Any, Any]] = [(layer.keys, layer.values) for layer in cache_layers(prompt.cache)]
        if cut:  # copied, for a part of a tensor would hold all of it
            pairs = [(keys[:, :, : len(ids)].clone(), values[:, :, : len(ids)].clone()) for keys, values in pairs]
        # It begins with the ones that go here.
        self._kept = [kept for kept in self._kept if common_prefix(kept.ids, ids) < len(kept.ids)]
        while self._kept and self.tokens + len(ids) > self._room:
            self._kept.pop(0)
        self._kept.append(_Kept(ids, pairs))
