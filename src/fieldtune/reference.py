"""`python -m fieldtune.reference` prints docs/configuration.md: every key and every choice, from the schema itself.

A key's meaning is the comment beside or above its field in the schema, or the docstring of its enum, so that the page
and the code cannot tell different stories.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, fields
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import omegaconf

from fieldtune import tasks
from fieldtune.checks import RANGES
from fieldtune.config import SECTIONS, Config, DataConfig, MixturePart
from fieldtune.keys import allowed
from fieldtune.resources import resource

INTRODUCTION = """\
# Configuration

This page is made by `python -m fieldtune.reference > docs/configuration.md`. Do not edit it by hand.

Choose a file of a group with `GROUP=CHOICE`, as in `model=gpt2_tiny`. Set one key with `KEY=VALUE`, as in
`trainer.max_steps=20`. Both go on the command line of `prepare.py`, `train.py` and `evaluate.py`. An unknown key or a
wrong type is refused before anything is loaded, with the nearest key that exists.

Order of precedence, lowest first: the default below, the chosen file of the group, the experiment, the command line.
`python train.py --cfg job` prints what comes out. Use the same words for all three commands.

`null` means "not set". `from model=` means that the chosen file of the group gives the value. A default in a chosen
file wins over the one below.
"""

SECTION_NOTES = {
    "": "Keys of the run as a whole.",
    "data": "What the examples are. These keys hold for every task.",
    "data.fitness": "Further keys of the task `fitness`, with `data=fitness`.",
    "data.golf": "Further keys of the task `golf`, with `data=golf` or `data=golf_short`.",
    "data.jsonl": "Further keys of the task `jsonl`, with `data=jsonl`.",
    "data.qved": "Further keys of the task `qved`, with `data=qved` or `data=qved_films` ([qved.md](qved.md)).",
    "data.mixture[]": "Keys of each item of `data.mixture`. [data.md](data.md) shows an example.",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the page. range: allowed numbers in words, empty if any is allowed or it is no number."""

    name: str
    kind: str
    default: str
    range: str
    meaning: str


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


def page() -> str:
    """docs/configuration.md as text, newline at the end."""
    parts = [INTRODUCTION, _choices_text()]
    for title, keys in sections():
        note = SECTION_NOTES.get(title, "")
        parts.append(f"## {title or 'Top level'}\n\n" + (f"{note}\n\n" if note else "") + _table(keys))
    return "\n".join(parts)


def sections() -> Iterator[tuple[str, list[Key]]]:
    """(title, keys) of each section, in the schema's order."""
    yield "", [key for key in _keys(Config, "") if key.name not in ("data", *SECTIONS)]
    shared = {item.name for item in fields(DataConfig)}
    yield "data", _keys(DataConfig, "data")
    yield "data.mixture[]", _keys(MixturePart, "data.mixture[]")
    for task in tasks.names():
        own = [key for key in _keys(tasks.data_schema(task), "data") if key.name.partition(".")[2] not in shared]
        yield f"data.{task}", own
    for section, schema in SECTIONS.items():
        yield section, _keys(schema, section)


def choices() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(group, [(choice, first line of its file's comment)]) of each group of conf/."""
    conf = resource("conf")
    for group in ("experiment", "data", *SECTIONS):
        yield group, [(path.stem, _first_comment(path)) for path in sorted((conf / group).glob("*.yaml"))]


def meanings(schema: type) -> dict[str, str]:
    """The comment above and beside each field of a schema class, inherited ones included; empty where there is none."""
    found: dict[str, str] = {}
    for owner in reversed(schema.__mro__):
        if owner.__module__.startswith("fieldtune."):
            found |= {name: text for name, text in _field_comments(owner) if text or name not in found}
    return found


def _field_comments(owner: type) -> Iterator[tuple[str, str]]:
    """(field, comment) in the source of one class: whole comment lines above the field, then the one behind it."""
    source = textwrap.dedent(inspect.getsource(owner))
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    above: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.strip().startswith("#"):
            above.append(comments[number])
            continue
        field = re.match(r"    (\w+):\s", line)
        if field:
            yield field[1], ". ".join([*([" ".join(above)] if above else []), *_present(comments.get(number))])
        above = []


def _present(text: str | None) -> list[str]:
    return [text] if text else []


def _keys(schema: type, section: str) -> list[Key]:
    hints, comments = get_type_hints(schema), meanings(schema)
    keys = []
    for item in fields(schema):
        hint, name = hints[item.name], f"{section}.{item.name}" if section else item.name
        meaning = comments.get(item.name) or _enum_text(hint)
        keys.append(Key(name, _kind(name, hint), _default(item, section), _range(name), meaning))
    return keys


def _enum_text(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " ".join((hint.__doc__ or "").split())
    return ""


def _kind(name: str, hint: Any) -> str:
    if get_origin(hint) is list:
        return {float: "a list of numbers", str: "a list of texts", MixturePart: "a list of objects"}[get_args(hint)[0]]
    if name.startswith("data.mixture[]"):
        return {float: "a number", str: "a text", bool: "true or false"}[hint]
    return allowed(name)


def _default(item: Field[Any], section: str) -> str:
    value = item.default if item.default_factory is NO_DEFAULT else item.default_factory()
    if value == omegaconf.MISSING:
        return f"from {section}=" if section in SECTIONS or item.name == "task" else "must be given"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return "[" + ",".join(f"{part:g}" for part in value) + "]"
    return json.dumps(value) if value is None or isinstance(value, bool | float) else str(value)


def _range(name: str) -> str:
    if name not in RANGES:
        return ""
    low, high = RANGES[name]
    assert low is not None
    return f"{_number(low)} or more" if high is None else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.6g}"


def _first_comment(path: Path) -> str:
    lines = (line.lstrip("# ").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    return next((line for line in lines if not line.startswith("@")), "")


def _choices_text() -> str:
    parts = ["## Groups\n"]
    for group, files in choices():
        parts.append(f"`{group}=`\n")
        parts += [f"- `{name}`: {_code(text) if text.startswith('python ') else text}" for name, text in files]
        parts.append("")
    return "\n".join(parts)


def _code(text: str) -> str:
    return f"`{' '.join(text.split('  ')[0].split())}`"


def _table(keys: Iterable[Key]) -> str:
    lines = ["| key | type | default | allowed | meaning |", "|---|---|---|---|---|"]
    for key in keys:
        cells = (f"`{key.name}`", key.kind, f"`{key.default}`", key.range or "any", key.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
