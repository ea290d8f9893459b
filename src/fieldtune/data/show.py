"""A split's rows as the model sees them: each token, and whether the loss counts it. For a terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldtune import datasets
from fieldtune.config import Config, TokenizerKind
from fieldtune.data.encode import Encoded, EncodeError, Encoder
from fieldtune.data.load import Rows, account, account_line, encode_examples
from fieldtune.data.media import CONTENTS, Shown
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.models.tokenizer import Tokenizer, load_tokenizer
from fieldtune.models.vision import load_reader
from fieldtune.models.weights import resolve
from fieldtune.pages import render, write_page
from fieldtune.progress import Progress
from fieldtune.records import SPLITS, Example, read_examples

LEFT_OUT_SHOWN = 20  # rows that a terminal names; the page names all
UNFINISHED = "\N{MIDLINE HORIZONTAL ELLIPSIS}"  # stands for the first bytes of a character that a later token ends
OPEN, CLOSE = "\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}", "\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}"
BETWEEN = "\N{MIDDLE DOT}"
MARKS = {"\n": "\N{RETURN SYMBOL}\n", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}

# Trained: black on two greens in turn. Not trained: plain and dim in turn. Special: bold, and underlined.
GREENS, PLAIN, SPECIAL = ("30;48;5;114", "30;48;5;151"), ("0", "2"), "1;4"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a row. text: printable, a line break as a sign and a break. trained: the loss counts it."""

    id: int
    text: str
    trained: bool
    special: bool


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row with its tokens; without tokens if it could not be encoded. left_out: why training leaves it out."""

    example: Example
    tokens: list[Token]
    left_out: str = ""

    @property
    def counts(self) -> str:
        """`156 tokens, 62 trained (39.7%)`."""
        total, trained = len(self.tokens), sum(token.trained for token in self.tokens)
        return f"{total:,} tokens, {trained:,} trained ({trained / total:.1%})" if total else "not encoded"


@dataclass(frozen=True, slots=True)
class View:
    """Some rows of a split, and the account of all of its rows."""

    config: Config
    dataset: Dataset
    split: str
    all_rows: Rows
    shown: list[ShownRow]

    @property
    def account_line(self) -> str:
        return account_line(self.split, account(self.all_rows))


def view(config: Config, split: str, count: int, identity: str) -> View:
    """The first `count` rows of a split that training uses, or the row called `identity`, be it used or not.

    Encodes the whole split. Of the model only the tokenizer is loaded. `UserError` if there is no such split or row.
    """
    if split not in SPLITS:
        raise UserError(f"split={split} is not a split; allowed: {', '.join(SPLITS)}")
    dataset = datasets.prepared(config)
    dataset.verify()
    wanted = _find(dataset, split, identity) if identity else None
    encoder = load_encoder(config)
    rows = encode_examples(
        _watched(dataset, split), encoder, config.model.context_length, train_on_prompt=config.data.train_on_prompt
    )
    if wanted is not None:
        shown = [_shown(wanted, rows, encoder, config)]
    else:
        pairs = zip(rows.examples[:count], rows.encoded, strict=False)
        shown = [ShownRow(example, tokens_of(row, encoder.tokenizer)) for example, row in pairs]
    return View(config, dataset, split, rows, shown)


def load_encoder(config: Config) -> Encoder:
    """The encoder that training uses. The weights' folder is asked for only if the tokenizer lies in it."""
    model = config.model
    folder = (
        resolve(model, config, with_weights=False).folder if model.tokenizer is TokenizerKind.from_weights else None
    )
    tokenizer = load_tokenizer(model.tokenizer, folder)
    return Encoder(tokenizer, model.template, load_reader(folder, tokenizer, model.frames))


def tokens_of(row: Encoded, tokenizer: Tokenizer) -> list[Token]:
    """The tokens of an encoded row. The first is predicted from nothing, so it is never a trained one."""
    ids = row.ids.tolist()
    return [
        Token(index, _printable(text), bool(trained) and number > 0, index < 0 or tokenizer.special(index) is not None)
        for number, (index, text, trained) in enumerate(zip(ids, _texts(ids, tokenizer), row.trained, strict=True))
    ]


def terminal_view(seen: View, *, color: bool) -> str:
    """The view as text; without color the trained tokens stand in brackets."""
    lines = [f"{seen.config.name}, {seen.config.model.name}, template {seen.config.model.template.name}"]
    lines += [seen.account_line, *_left_out_lines(seen.all_rows.left_out)]
    sample = [Token(0, "what", True, False), Token(0, " the", True, False), Token(0, " loss counts", True, False)]
    lines += [f"Trained tokens look like this: {_painted(sample) if color else _bracketed(sample)}"]
    for row in seen.shown:
        facts = "".join(f"  {key}: {value}" for key, value in row.example.meta.items())
        head = _one_line(f"--- {row.example.id}  {row.counts}{facts}")
        lines += ["", f"\x1b[1m{head}\x1b[0m" if color else head]
        lines += [f"left out: {_one_line(row.left_out)}"] if row.left_out else []
        lines += [_painted(row.tokens) if color else _bracketed(row.tokens)] if row.tokens else []
    return "\n".join(lines) + "\n"


def write_view(path: Path, seen: View) -> Path:
    """The view as one page that needs nothing but itself; `UserError` if it cannot be written. Returns `path`."""
    model = seen.config.model
    facts = {
        "Data set": f"{seen.config.data.task}, {seen.dataset.fingerprint[:12]}",
        "Split": seen.account_line,
        "Model": f"{model.name} ({model.weights})",
        "Template": model.template.name,
    }
    html = render("rows.html.j2", title=seen.config.name, facts=facts, rows=seen.shown, left_out=seen.all_rows.left_out)
    try:
        return write_page(path, html)
    except OSError as error:
        raise UserError(f"html={path} cannot be written ({error.strerror}); give the path of a file") from None


def _watched(dataset: Dataset, split: str) -> Iterator[Example]:
    progress = Progress(f"encoding {split}", dataset.rows[split])
    for example in read_examples(dataset.split(split)):
        yield example
        progress.advance()


def _find(dataset: Dataset, split: str, identity: str) -> Example:
    first = ""
    for name in sorted(SPLITS, key=lambda name: name != split):
        for example in read_examples(dataset.split(name)):
            if example.id == identity and name == split:
                return example
            if example.id == identity:
                raise UserError(f"id={identity} is a row of another split; give split={name}")
            first = first or example.id
    raise UserError(f"id={identity} is not a row of this data set; its ids look like {first}")


def _shown(example: Example, rows: Rows, encoder: Encoder, config: Config) -> ShownRow:
    reason = dict(rows.left_out).get(example.id, "")
    try:
        row = encoder.row(example.messages, train_on_prompt=config.data.train_on_prompt)
    except EncodeError:
        return ShownRow(example, [], reason)
    return ShownRow(example, tokens_of(row, encoder.tokenizer), reason)


def _texts(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    """What each token adds to the text. Of the tokens that make one character the last one has it.

    A token is decoded together with the one before: some tokenizers write a first token without its blank.
    """
    begin = read = 0  # ids[begin:read] are decoded as the context, ids[read:] wait for the end of a character
    names = {number: _picture_text(shown) for number, shown in CONTENTS.in_order(np.array(ids))}
    for number, index in enumerate(ids):
        special = tokenizer.special(index) if index >= 0 else names.get(number, "")
        if special is not None:
            yield special
            begin = read = number + 1
            continue
        text = tokenizer.decode(ids[begin : number + 1])
        following = ids[number + 1] if number + 1 < len(ids) else -1
        last = following < 0 or tokenizer.special(following) is not None
        if text.endswith("\N{REPLACEMENT CHARACTER}") and not last:
            yield UNFINISHED
            continue
        yield text[len(tokenizer.decode(ids[begin:read])) :]
        begin, read = read, number + 1


def _picture_text(shown: Shown) -> str:
    """Stands at the first of a picture's places."""
    height, width = shown.size
    return f"[{shown.path.name}, {width} x {height}: {shown.places:,} tokens]"


def _printable(text: str) -> str:
    """Signs for line breaks and tabs, escapes for whatever else could move the cursor or turn the text around."""
    return "".join(MARKS.get(char) or (char if char.isprintable() else _escaped(char)) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _one_line(text: str) -> str:
    return _printable(text.replace("\n", " "))


def _painted(tokens: Sequence[Token]) -> str:
    """With ANSI colors; a color ends before a line break, or the terminal would fill the line with it."""
    parts = []
    for number, token in enumerate(tokens):
        style = (GREENS if token.trained else PLAIN)[number % 2] + (f";{SPECIAL}" if token.special else "")
        parts.append("\n".join(f"\x1b[{style}m{line}\x1b[0m" if line else "" for line in token.text.split("\n")))
    return "".join(parts)


def _bracketed(tokens: Sequence[Token]) -> str:
    """Brackets around each run of trained tokens, a dot between two of them."""
    parts: list[str] = []
    before = False
    for token in tokens:
        if token.trained:
            parts.append(BETWEEN if before else OPEN)
        elif before:
            parts.append(CLOSE)
        parts.append(token.text)
        before = token.trained
    return "".join([*parts, CLOSE if before else ""])


def _left_out_lines(left_out: Sequence[tuple[str, Any]]) -> Iterator[str]:
    for identity, reason in left_out[:LEFT_OUT_SHOWN]:
        yield f"  {_one_line(identity)} is left out: {_one_line(reason)}"
    if len(left_out) > LEFT_OUT_SHOWN:
        yield f"  {len(left_out) - LEFT_OUT_SHOWN:,} further rows are left out; html=FILE names all"
