"""Decoding of several answers at once, where each may begin and end at any step: what a server runs.

The rows of a batch have different lengths. Their keys and values lie in one cache, each row aligned to the right, and a
mask hides what is left of a shorter row. So a distance between two columns is the distance between two tokens, and a
model with a sliding window sees what it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch

from fieldtune.data.batches import moved
from fieldtune.data.media import CONTENTS, media_of
from fieldtune.errors import UserError
from fieldtune.models.constrained import Constraint
from fieldtune.models.generate import Sampling
from fieldtune.models.looks import embedded
from fieldtune.models.loss import unwrapped


class Prompt:
    """A prompt on its way through the model, some tokens at a time so that others need not wait for all of it.

    after: a prompt that this one begins with; what went through the model for it is not computed again. Ids below 0 are
    the places of pictures, which go through the tower when the first of its tokens is taken.
    """

    def __init__(self, ids: Sequence[int], after: Prompt | None = None) -> None:
        from transformers import DynamicCache

        self.ids = list(ids)
        self.done: int = 0 if after is None else after.done
        self.cache: Any = DynamicCache()  # without the model's settings: every layer keeps all of its keys
        if after is not None:  # a layer that grows makes new tensors, so the old ones can be shared
            self.cache.layers = [copy(layer) for layer in after.cache.layers]
        self._positions = _positions_of(self.ids)
        self._vectors: torch.Tensor | None = None  # what the language model is given for the last tokens

    @property
    def ahead(self) -> int:
        """By how much the position of the answer's first token is more than its number."""
        return int(self._positions.max()) + 1 - len(self.ids)

    @torch.inference_mode()
    def advance(self, model: Any, tokens: int) -> torch.Tensor | None:
        """Take up to `tokens` more; the logits of the first word of the answer [vocabulary] once all are through."""
        device = next(model.parameters()).device
        end = min(self.done + tokens, len(self.ids))
        output = model(
            **self._entering(model, end, device),
            position_ids=self._positions[..., self.done : end].to(device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.done = end
        return output.logits[0, -1].float().cpu() if self.done == len(self.ids) else None

    def _entering(self, model: Any, end: int, device: torch.device) -> dict[str, torch.Tensor]:
        """What the model is given for the tokens from `done` to `end`."""
        left = torch.tensor([self.ids[self.done :]])
        if self._vectors is None:
            media = media_of(left)
            if media is None:
                return {"input_ids": left[:, : end - self.done].to(device)}
            self._vectors = embedded(unwrapped(model), left.to(device), moved(media, device))
        left_over = self._vectors.shape[1] - left.shape[1]
        return {"inputs_embeds": self._vectors[:, left_over : left_over + end - self.done]}


class RaggedBatch:
    """Rows of different lengths that get one token each a step. Rows are numbered from 0; a new one is the last."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._cache: Any = None
        self._lengths: list[int] = []  # tokens in the cache, a row
        self._ahead: list[int] = []  # by how much a row's next position is more than that

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def join(self, prompt: Prompt) -> None:
        """Take in a prompt that is through the model; its cache becomes a part of this one."""
        before = max(self._lengths, default=0)
        self._lengths.append(len(prompt.ids))
        self._ahead.append(prompt.ahead)
        if self._cache is None:
            self._cache = prompt.cache
            return
        width = max(self._lengths)
        for layer, new in zip(cache_layers(self._cache), cache_layers(prompt.cache), strict=True):
            for name in ("keys", "values"):
                old = _widened(getattr(layer, name), width - before)
                setattr(layer, name, torch.cat([old, _widened(getattr(new, name), width - len(prompt.ids))]))

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits after one more token of each row, fp32 on the CPU [rows, vocabulary]."""
        lengths = torch.tensor(self._lengths, device=self._device)
        width = max(self._lengths)
        mask = torch.arange(width + 1, device=self._device)[None] >= (width - lengths)[:, None]
        output = self._model(
            input_ids=torch.tensor(tokens, device=self._device)[:, None],
            attention_mask=mask.long(),
            position_ids=(lengths + torch.tensor(self._ahead, device=self._device))[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._lengths = [length + 1 for length in self._lengths]
        logits: torch.Tensor = output.logits[:, -1].float().cpu()
        return logits

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows go, and the columns that only they needed."""
        if len(rows) == len(self._lengths):
            return
        before = max(self._lengths)
        self._lengths = [self._lengths[row] for row in rows]
        self._ahead = [self._ahead[row] for row in rows]
        if not rows:
            self._cache = None
            return
        unused, chosen = before - max(self._lengths), torch.tensor(rows, device=self._device)
        for layer in cache_layers(self._cache):
            layer.keys, layer.values = layer.keys[chosen, :, unused:], layer.values[chosen, :, unused:]


class Chooser:
    """Picks the tokens of one answer. Its draws are its own, so that they do not depend on who else is answered."""

    def __init__(self, sampling: Sampling, constraint: Constraint | None = None) -> None:
        self._sampling, self._constraint = sampling, constraint
        self._random = torch.Generator().manual_seed(sampling.seed)

    @property
    def ended(self) -> bool:
        """A constrained answer is whole: there is nothing more to choose."""
        return self._constraint is not None and self._constraint.ended

    @torch.inference_mode()
    def pick(self, logits: torch.Tensor) -> int:
        """The next token by its logits [vocabulary]; a constraint goes on with it."""
        if self._constraint is not None:
            logits = logits.masked_fill(~self._constraint.allowed(), float("-inf"))
        token = int(logits.argmax()) if self._sampling.temperature == 0 else self._draw(logits)
        if self._constraint is not None:
            self._constraint.take(token)
        return token

    def _draw(self, logits: torch.Tensor) -> int:
        settings = self._sampling
        count = min(settings.top_k, len(logits)) if settings.top_k else len(logits)
        values, tokens = (logits / settings.temperature).topk(count)
        shares = values.softmax(0)
        # A token stays if the likelier ones do not reach top_p without it; the likeliest always stays.
        shares = shares.masked_fill((shares.cumsum(0) - shares >= settings.top_p) & (shares.cumsum(0) > shares), 0.0)
        return int(tokens[torch.multinomial(shares, 1, generator=self._random)])


def vocabulary_width(model: Any) -> int:
    """Entries of the model's logits. `UserError` if its cache cannot be joined with others."""
    prompt = Prompt([0])
    logits = prompt.advance(model, 1)
    assert logits is not None
    cache_layers(prompt.cache)
    return len(logits)


def cache_layers(cache: Any) -> list[Any]:
    """The layers that hold keys and values [rows, heads, tokens, features]; `UserError` if one holds more."""
    from transformers.cache_utils import DynamicLayer

    layers = [layer for layer in cache.layers if layer.is_initialized]
    if any(type(layer) is not DynamicLayer for layer in layers):
        raise UserError("this model keeps more than keys and values of earlier tokens; it cannot be served in batches")
    return layers


def _widened(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    """Columns of zeros put before the others [rows, heads, columns, features]."""
    return torch.nn.functional.pad(tensor, (0, 0, columns, 0)) if columns else tensor


def positions(model: Any) -> int:
    """Tokens that the model can take, prompt and answer."""
    return int(unwrapped(model).config.get_text_config().max_position_embeddings)


def _positions_of(ids: Sequence[int]) -> torch.Tensor:
    """[1, tokens], or [axes, 1, tokens] where pictures make a model count otherwise."""
    shown = CONTENTS.in_order(np.array(ids))
    found = shown[0][1].reader.positions(np.array(ids)) if shown else None
    return torch.arange(len(ids))[None] if found is None else torch.from_numpy(found)[:, None]
