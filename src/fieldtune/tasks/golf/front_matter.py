"""The YAML front matter of one knowledge file, read key by key so that every mistake in it is named at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fieldtune.tasks.golf.swing import AREAS, SEVERITY_PHRASE

KINDS = ("overview", "faults", "drills", "cues")
_FIGURE = re.compile(r"\d\s*%|\d\s*percent\b|\b0\.\d", re.IGNORECASE)

Sentences = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The front matter of one file; every reading method notes what is wrong and returns something usable."""

    path: Path
    area: str
    data: Mapping[str, Any]
    problems: list[str]

    @classmethod
    def read(cls, path: Path, kind: str, problems: list[str]) -> FrontMatter | None:
        try:
            data = _front_matter(path)
        except _BrokenFile as error:
            problems.append(f"{path}: {error}")
            return None
        wrong = []
        if data.get("kind") != kind:
            wrong.append(f"kind is {data.get('kind')}; a {path.name} has kind: {kind}")
        if str(data.get("area")) not in AREAS:
            wrong.append(f"area is {data.get('area')}; allowed: {', '.join(AREAS)}")
        problems += [f"{path}: {text}" for text in wrong]
        return None if wrong else cls(path, str(data["area"]), data, problems)

    def problem(self, text: str) -> None:
        self.problems.append(f"{self.path}: {text}")

    def text(self, item: Mapping[str, Any], key: str, where: str = "") -> str:
        """A fragment such as a name."""
        value = item.get(key)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
        label = f"{where}: {key}" if where else key
        self.problem(f"{label} is missing" if value is None else f"{label} is not a text; put it in quotes")
        return ""

    def sentence(self, item: Mapping[str, Any], key: str, where: str = "") -> str:
        """A sentence that the program may put beside any other."""
        text = self.text(item, key, where)
        return self._checked(text, f"{where}: {key}" if where else key) if text else text

    def sentences(self, item: Mapping[str, Any], key: str, least: int, where: str = "") -> Sentences:
        values, label = item.get(key), f"{where}: {key}" if where else key
        if not isinstance(values, list) or len(values) < least:
            count = len(values) if isinstance(values, list) else 0
            self.problem(f"{label} is missing" if values is None else f"{label} has {count} entries; at least {least}")
            return ()
        if not all(isinstance(value, str) and value.strip() for value in values):
            self.problem(f"{label} has an entry that is not a text; put texts with ': ' or ' #' in quotes")
            return ()
        return tuple(self._checked(" ".join(value.split()), label) for value in values)

    def _checked(self, text: str, label: str) -> str:
        if SEVERITY_PHRASE.search(text) or _FIGURE.search(text):
            self.problem(f"{label} says {text[:60]!r}; severities and scores are said by the program, leave them out")
        if not text.endswith((".", "!", "?")):
            self.problem(f"{label} says {text[:60]!r}, which does not end with a full stop")
        return text

    def table(self, key: str, names: tuple[str, ...], least: int) -> dict[str, Sentences]:
        value = self.data.get(key)
        if not isinstance(value, dict):
            self.problem(f"{key} is missing; it has {', '.join(names)}")
            return {}
        for name in value:
            if name not in names:
                self.problem(f"{key}: {name} is not allowed; allowed: {', '.join(names)}")
        return {name: self.sentences(value, name, least, key) for name in names}

    def items(self, key: str, least: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The objects of a list, each with its place in words: ("drill rope_swing", {...})."""
        values = self.data.get(key)
        if not isinstance(values, list) or len(values) < least:
            self.problem(f"{key} has {len(values) if isinstance(values, list) else 0} entries; at least {least}")
            return []
        found: dict[str, Mapping[str, Any]] = {}
        for number, item in enumerate(values, 1):
            name = item.get("id") if isinstance(item, dict) else None
            if not isinstance(name, str) or not name:
                self.problem(f"{key[:-1]} {number} has no id")
            elif name in found:
                self.problem(f"{key[:-1]} {name} is there twice")
            else:
                found[name] = item
        return [(f"{key[:-1]} {name}", item) for name, item in found.items()]


class _BrokenFile(Exception):
    """The front matter of a file cannot be read; the message says why."""


def _front_matter(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _BrokenFile(f"missing; an area has {', '.join(f'{kind}.md' for kind in KINDS)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _BrokenFile(f"cannot be read as UTF-8 text ({error})") from None
    if not text.strip():
        raise _BrokenFile("empty")
    found = re.match(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n|$)", text, re.DOTALL)
    if found is None:
        raise _BrokenFile("no front matter; begin with YAML between two lines ---")
    try:
        # CSafeLoader builds plain values only, and reads the 32 files in a fraction of the Python loader's time.
        data = yaml.load(found[1], Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 2
        raise _BrokenFile(f"YAML error in line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise _BrokenFile(f"YAML error: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise _BrokenFile("the front matter is not a mapping of keys")
    return data
