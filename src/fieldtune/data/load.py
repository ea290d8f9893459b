"""A split of a data set as encoded rows, with an account of every row that is left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from fieldtune.data.encode import Encoded, EncodeError, Encoder
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.records import Example, read_examples

log = logging.getLogger("fieldtune")

SHOWN = 5  # rows named in the log; the manifest holds all


@dataclass(frozen=True, slots=True)
class Rows:
    """examples and encoded stand side by side. left_out: (id, reason) of each row that cannot be used."""

    examples: list[Example]
    encoded: list[Encoded]
    left_out: list[tuple[str, str]]

    @property
    def supervised(self) -> int:
        """Tokens that the loss counts, over all rows."""
        return sum(row.supervised for row in self.encoded)


def encode_examples(
    examples: Iterable[Example], encoder: Encoder, context_length: int, *, train_on_prompt: bool = False
) -> Rows:
    """Encode each example. Left out, never cut: rows longer than `context_length` tokens, rows without a token that
    the loss counts, and rows whose text holds a special token's."""
    kept: list[Example] = []
    encoded: list[Encoded] = []
    left_out: list[tuple[str, str]] = []
    for example in examples:
        try:
            row = encoder.row(example.messages, train_on_prompt=train_on_prompt)
        except EncodeError as error:
            left_out.append((example.id, str(error)))
            continue
        if len(row.ids) > context_length:
            left_out.append((example.id, f"{len(row.ids):,} tokens; model.context_length is {context_length:,}"))
        elif row.supervised == 0:
            left_out.append((example.id, "no token that the loss counts"))
        else:
            kept.append(example)
            encoded.append(row)
    return Rows(kept, encoded, left_out)


def load_split(
    dataset: Dataset,
    split: str,
    encoder: Encoder,
    context_length: int,
    *,
    rows: int | None = None,
    train_on_prompt: bool = False,
) -> Rows:
    """The first `rows` examples of a split (null: all), encoded; `UserError` if none of them can be used."""
    examples = islice(read_examples(dataset.split(split)), rows)
    loaded = encode_examples(examples, encoder, context_length, train_on_prompt=train_on_prompt)
    for identity, reason in loaded.left_out[:SHOWN]:
        log.warning("%s row %s is left out: %s", split, identity, reason)
    if len(loaded.left_out) > SHOWN:
        log.warning("%s: %d further rows are left out", split, len(loaded.left_out) - SHOWN)
    if loaded.left_out and not loaded.encoded:
        identity, reason = loaded.left_out[0]
        raise UserError(f"no {split} row can be used: {identity}: {reason}")
    return loaded
