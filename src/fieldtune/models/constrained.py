"""Answers held to a JSON schema: at each step, the tokens that can still lead to a valid document.

The grammar is llguidance's (https://github.com/guidance-ai/llguidance). docs/serving.md says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fieldtune.errors import UserError
from fieldtune.models.tokenizer import Tokenizer

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

# A model may write its JSON compact or indented. Without a bound, a weak one writes blanks to its last token.
# `oneOf` is taken as `anyOf`, which is the same wherever the cases exclude each other.
OPTIONS = {"whitespace_pattern": r"\n?\x20{1,20}|\n", "coerce_one_of": True}


class Constraint:
    """The way of one answer through a schema. `UserError` if the schema is wrong or uses what is not supported.

    width: entries of the model's logits, which may be more than the tokenizer has ids.
    """

    def __init__(self, tokenizer: Tokenizer, schema: Mapping[str, Any], width: int) -> None:
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(dict(schema), overrides=OPTIONS)
        except (TypeError, ValueError) as error:
            raise UserError(f"the JSON schema cannot be used: {_one_line(error)}") from None
        self._width = width
        key: Any = tokenizer  # of the cache; mypy does not take a Protocol for hashable
        self._matcher = LLMatcher(_vocabulary(key, width, tokenizer.stop_ids), grammar, log_level=0)
        self._must_be_well()

    @property
    def ended(self) -> bool:
        """The document is whole and nothing but the end can follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> torch.Tensor:
        """Which tokens may come next, bool [width]; the end token once the document can be whole."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._must_be_well()
        return torch.from_numpy(np.unpackbits(bits, count=self._width, bitorder="little").astype(np.bool_))

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""
        self._matcher.consume_token(token)
        self._must_be_well()

    def _must_be_well(self) -> None:
        if self._matcher.is_error():
            raise UserError(f"the JSON schema cannot be used: {_one_line(self._matcher.get_error())}")


class ConstrainedLogits:
    """A logits processor of transformers that holds each row of a batch to the schema.

    prompt: tokens of a row before its answer.
    """

    def __init__(self, tokenizer: Tokenizer, schema: Mapping[str, Any], prompt: int) -> None:
        self._tokenizer, self._schema, self._prompt = tokenizer, schema, prompt
        self._rows: list[Constraint] = []

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if not self._rows:
            self._rows = [Constraint(self._tokenizer, self._schema, logits.shape[-1]) for _ in ids]
        allowed = torch.ones(logits.shape, dtype=torch.bool)
        for number, row in enumerate(self._rows):
            answer = ids[number, self._prompt :].tolist()
            if not self._tokenizer.stop_ids.isdisjoint(answer):
                continue  # this row is done and is filled up while others go on
            if answer:
                row.take(answer[-1])
            allowed[number] = row.allowed()
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))


@lru_cache(maxsize=4)  # made of every token there is, which takes up to a second
def _vocabulary(tokenizer: Any, width: int, ends: frozenset[int]) -> Any:
    import tiktoken
    from llguidance.hf import from_tokenizer
    from llguidance.tiktoken import lltokenizer_from_encoding

    native, eos = tokenizer.native, sorted(ends)
    if isinstance(native, tiktoken.Encoding):
        return lltokenizer_from_encoding(native, n_vocab=width, eos_token=eos)
    try:
        return from_tokenizer(native, n_vocab=width, eos_token=eos)
    except ValueError as error:
        raise UserError(f"this model's tokenizer cannot be held to a schema ({_one_line(error)})") from None


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
