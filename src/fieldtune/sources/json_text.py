"""JSON as text: read without what Python's reader lets pass, the line of each value, and long lists written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_STRINGS = json.JSONDecoder()
_PLAIN = re.compile(r"[^\s,\]}]+")


class NotJson(ValueError):
    """A text is not JSON that we read; the message says why. line: counted from 1."""

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.line = line


def strict_json(text: str, longest: int | None = None) -> Any:
    """Decoded JSON; `NotJson` also for what Python lets pass: NaN, a key twice, numbers without end, deep nesting."""
    if longest is not None and len(text) > longest:
        raise NotJson(f"given {len(text):,} characters; allowed: {longest:,}")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        return value
    except NotJson:
        raise
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON ({error.msg}, line {error.lineno} column {error.colno})", error.lineno) from None
    except RecursionError:
        raise NotJson("not JSON (nested too deeply)") from None
    except UnicodeEncodeError:
        raise NotJson("holds half of a surrogate pair (\\ud800 to \\udfff)") from None
    except ValueError as error:
        raise NotJson(f"not JSON ({str(error).partition(';')[0]})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise NotJson(f"the key {next(n for n in names if names.count(n) > 1)!r} is given twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise NotJson(f"given {name}; allowed: finite numbers")


def value_lines(text: str) -> dict[str, int]:
    """Line of each value of a text that is JSON, by its path: `` (the whole), `rows[0].date`, `[3].messages`."""
    found: dict[str, int] = {}
    _Walk(text, found).value(0, "")
    return found


def line_of(lines: dict[str, int], path: str) -> int:
    """The line of a path, or of the nearest value around it."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, 1)


class _Walk:
    def __init__(self, text: str, found: dict[str, int]) -> None:
        self.text, self.found = text, found
        self.line, self.counted = 1, 0

    def value(self, start: int, path: str) -> int:
        """Notes a value and those in it; returns where it ends."""
        place = self._skip(start)
        self.line += self.text.count("\n", self.counted, place)
        self.counted = place
        self.found[path] = self.line
        first = self.text[place]
        if first == '"':
            return _STRINGS.raw_decode(self.text, place)[1]
        if first not in "{[":
            plain = _PLAIN.match(self.text, place)
            assert plain is not None
            return plain.end()
        return self._members(place, path, first == "{")

    def _members(self, place: int, path: str, named: bool) -> int:
        end, number = self._skip(place + 1), 0
        if self.text[end] in "}]":
            return end + 1
        while True:
            inner = f"{path}[{number}]"
            if named:
                key, end = _STRINGS.raw_decode(self.text, self._skip(end))
                end = self._skip(end) + 1  # behind the colon
                inner = f"{path}.{key}".removeprefix(".")
            end = self._skip(self.value(end, inner))
            number += 1
            if self.text[end] in "}]":
                return end + 1
            end += 1  # behind the comma

    def _skip(self, place: int) -> int:
        space = _SPACE.match(self.text, place)
        assert space is not None
        return space.end()


def write_list(path: Path, values: Iterable[Any]) -> Path:
    """Write a JSON list, value by value: it may be larger than memory. Returns `path`, which is there as a whole."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, value in enumerate(values):
            text = json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n  ")
            file.write(("," if number else "") + "\n  " + text)
        file.write("\n]\n")
    part.replace(path)
    return path
