"""Ollama's Modelfile: written, and read back as Ollama reads it, so that what was meant is what it gets."""

from __future__ import annotations

from collections.abc import Sequence

from fieldtune.errors import UserError

QUOTES = '"""'


def write_modelfile(lines: Sequence[tuple[str, str]]) -> str:
    """The text of (instruction, value) pairs, as ("PARAMETER num_ctx", "2048"); `UserError` if Ollama would read a
    value otherwise."""
    text = "".join(f"{name} {_quoted(value)}\n" for name, value in lines)
    for (name, value), (found_name, found) in zip(lines, read_modelfile(text), strict=True):
        if (name, value) != (found_name, found):
            raise UserError(f"{name} holds a text that a Modelfile cannot: {value[:60]!r}")
    return text


def _quoted(value: str) -> str:
    plain = value.isprintable() and value == value.strip() and '"' not in value and value
    return value if plain else f"{QUOTES}{value}{QUOTES}"


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """(instruction, value) pairs. A quoted value ends at a line's end after its quotes; letters that are not printable,
    but for line breaks and tabs, are lost, as in Ollama's own reader."""
    found: list[tuple[str, str]] = []
    lines = text.splitlines(keepends=True)
    while lines:
        name, _, value = lines.pop(0).partition(" ")
        if name == "PARAMETER":
            key, _, value = value.partition(" ")
            name = f"{name} {key}"
        while _is_open(value):
            if not lines:
                raise UserError(f"a Modelfile's {name} has no end")
            value += lines.pop(0)
        found.append((name, _unquoted("".join(letter for letter in value if _is_kept(letter)).strip())))
    return found


def _is_kept(letter: str) -> bool:
    return letter.isprintable() or letter in "\n\t"


def _is_open(value: str) -> bool:
    value = value.strip()
    if value.startswith(QUOTES):
        return len(value) < 6 or not value.endswith(QUOTES)
    return value.startswith('"') and (len(value) < 2 or not value.endswith('"'))


def _unquoted(value: str) -> str:
    if value.startswith(QUOTES):
        return value[3:-3]
    return value[1:-1] if value.startswith('"') else value
