"""A split of a data set as encoded rows, with an account of every row that is left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from fieldtune.data.encode import Encoded, EncodeError, Encoder
from fieldtune.data.media import Shown
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.records import Example, read_examples

log = logging.getLogger("fieldtune")

SHOWN = 5  # rows named on the terminal; log.txt and the manifest name all


@dataclass(frozen=True, slots=True)
class Rows:
    """examples and encoded stand side by side. left_out: (id, reason) of each row that cannot be used."""

    examples: list[Example]
    encoded: list[Encoded]
    left_out: list[tuple[str, str]]


def media_of_rows(parts: Iterable[Rows]) -> list[Shown]:
    """Each picture and film of some rows, once."""
    return media_of_encoded(row for part in parts for row in part.encoded)


def media_of_encoded(rows: Iterable[Encoded]) -> list[Shown]:
    return list({shown.first: shown for row in rows for shown in row.media}.values())


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
            left_out.append((example.id, _too_long(row, context_length)))
        elif row.supervised == 0:
            left_out.append((example.id, "no token that the loss counts"))
        else:
            kept.append(example)
            encoded.append(row)
    return Rows(kept, encoded, left_out)


def _too_long(row: Encoded, context_length: int) -> str:
    places = sum(shown.places for shown in row.media)
    of_them = f", {places:,} of them of pictures, which are never cut" if places else ""
    return f"{len(row.ids):,} tokens{of_them}; model.context_length is {context_length:,}"


def load_split(
    dataset: Dataset,
    split: str,
    encoder: Encoder,
    context_length: int,
    *,
    rows: int | None = None,
    train_on_prompt: bool = False,
    change: Callable[[Example], Example] | None = None,
) -> Rows:
    """The first `rows` examples of a split (null: all), encoded; `UserError` if none of them can be used. change: done
    with each of them before.

    Tells what the loss counts in the split (see `account`), and each row that is left out with its reason.
    """
    examples: Iterable[Example] = islice(read_examples(dataset.split(split)), rows)
    if change is not None:
        examples = map(change, examples)
    loaded = encode_examples(examples, encoder, context_length, train_on_prompt=train_on_prompt)
    name_left_out(split, loaded)
    if loaded.left_out and not loaded.encoded:
        identity, reason = loaded.left_out[0]
        others = len(loaded.left_out) - 1
        more = f" (and {others:,} more, named in log.txt)" if others else ""
        raise UserError(f"no {split} row can be used: {identity}: {reason}{more}")
    if loaded.encoded:
        log.info("%s", account_line(split, account(loaded)))
    return loaded


def name_left_out(split: str, rows: Rows) -> None:
    """Tell each row that is left out with its reason: some on the terminal, the others in log.txt."""
    for number, (identity, reason) in enumerate(rows.left_out):
        log.log(
            logging.WARNING if number < SHOWN else logging.DEBUG, "%s row %s is left out: %s", split, identity, reason
        )
    if len(rows.left_out) > SHOWN:
        log.warning("%s: %d further rows are left out; log.txt names them", split, len(rows.left_out) - SHOWN)


def account(rows: Rows) -> dict[str, Any]:
    """What the loss counts in some rows, ready for a manifest.

    rows, left_out: numbers of rows. tokens: of the rows that are kept. supervised: those of them that the loss counts;
    supervised_share: supervised / tokens. supervised_a_row: min, median and max over the rows. Null without rows.
    """
    counts = [row.supervised for row in rows.encoded]
    tokens = sum(len(row.ids) for row in rows.encoded)
    return {
        "rows": len(counts),
        "left_out": len(rows.left_out),
        "tokens": tokens,
        "supervised": sum(counts),
        "supervised_share": round(sum(counts) / tokens, 6) if counts else None,
        "supervised_a_row": {"min": min(counts), "median": median(counts), "max": max(counts)} if counts else None,
    }


def account_line(split: str, facts: dict[str, Any]) -> str:
    """An `account` in one line, for the log."""
    left_out = f"; {facts['left_out']:,} left out" if facts["left_out"] else ""
    if not facts["rows"]:
        return f"{split}: no rows{left_out}"
    row = facts["supervised_a_row"]
    spread = f"{row['min']:,} to {row['max']:,} a row, median {row['median']:,.0f}"
    return (
        f"{split}: {facts['rows']:,} rows, {facts['tokens']:,} tokens, {facts['supervised']:,} of them supervised "
        f"({facts['supervised_share']:.1%}; {spread}){left_out}"
    )
