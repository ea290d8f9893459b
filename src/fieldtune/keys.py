"""The names of the schema: all keys, the nearest one to a typo, a key's type in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from fieldtune import tasks
from fieldtune.config import SECTIONS, Config


def schema_keys() -> list[str]:
    """Every key of the schema in full, as in trainer.learning_rate."""
    keys = [item.name for item in fields(Config)]
    for section, schema in SECTIONS.items():
        keys += [f"{section}.{item.name}" for item in fields(schema)]
    for task in tasks.names():
        keys += [f"data.{item.name}" for item in fields(tasks.data_schema(task))]
    return list(dict.fromkeys(keys))


def nearest(word: str, choices: list[str]) -> str:
    """`; did you mean X?` for a near choice, else nothing."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def unknown_key(key: str) -> str:
    """One line for a key that the schema does not have, with the nearest one that it has."""
    key = key.lstrip("+~")
    section, _, _ = key.rpartition(".")
    choices = [name for name in schema_keys() if name.rpartition(".")[0] == section]
    elsewhere = [name for name in schema_keys() if name.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = nearest(key, choices) or (f"; did you mean {elsewhere[0]}?" if elsewhere else "")
    if not hint and choices:
        hint = f"; {section or 'the top level'} has: {', '.join(name.rpartition('.')[2] for name in choices)}"
    return f"{key} is not a key of the configuration{hint}"


def unknown_keys(composed: Mapping[str, Any], task: str) -> list[str]:
    """Keys of a composed configuration that the schema does not have, in full."""
    sections: dict[str, Any] = {**SECTIONS, "data": tasks.data_schema(task)}
    found = [str(key) for key in composed if key not in {item.name for item in fields(Config)}]
    for section, schema in sections.items():
        known = {item.name for item in fields(schema)}
        found += [f"{section}.{key}" for key in composed.get(section) or {} if key not in known]
    return found


def allowed(key: str) -> str:
    """The type of a schema key in words."""
    section, _, name = re.sub(r"\[\d+\]$", "", key).rpartition(".")
    schemas: list[Any] = [SECTIONS[section]] if section in SECTIONS else [Config]
    if section == "data":
        schemas = [tasks.data_schema(task) for task in tasks.names()]
    for schema in schemas:
        hint = get_type_hints(schema).get(name)
        if hint is not None:
            return _words(hint)
    return "see docs/configuration.md"


def _words(hint: Any) -> str:
    if hasattr(hint, "__members__"):
        return " | ".join(hint.__members__)
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    parts = get_args(hint)
    if hint in names:
        return names[hint]
    if getattr(hint, "__origin__", None) is list:
        return f"a list, each item {' or '.join(_words(part) for part in parts)}"
    if parts:
        return " or ".join(_words(part) for part in parts)
    return str(getattr(hint, "__name__", hint))
