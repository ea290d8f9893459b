"""Hydra's side: where the YAML is, which schemas it is composed onto, and its errors in one clear line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from fieldtune import tasks
from fieldtune.config import SECTIONS, Config
from fieldtune.errors import ConfigError
from fieldtune.resources import resource


def conf_dir() -> Path:
    """The folder of YAML files that Hydra composes."""
    return resource("conf")


def register_schemas() -> None:
    """Make the dataclasses known to Hydra: the root as `schema`, each task's data section as `schema/data/<task>`."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for task in tasks.names():
        store.store(group="schema/data", name=task, node=tasks.data_schema(task))


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


@contextmanager
def explained(stage: str) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's exceptions into a `ConfigError` of one clear line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([_explain(error, stage)]) from None


def _explain(error: BaseException, stage: str) -> str:
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _unknown_choice(cause)
        if isinstance(cause, OverrideParseException):
            return f"cannot read the override {cause.override!r}; write KEY=VALUE or GROUP=CHOICE, quoted for the shell"
    for cause in chain:
        if isinstance(cause, ConfigKeyError) and cause.full_key:
            return _unknown_key(str(cause.full_key))
        if isinstance(cause, ValidationError) and cause.full_key:
            return f"{cause.full_key}: {_first_line(cause)}; allowed: {_allowed(str(cause.full_key))}"
    text = " ".join(_first_line(cause) for cause in chain[:1])
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        return _unknown_key(key.group(1))
    group = re.search(r"Could not override '?([\w/]+)'?\.? ?No match in the defaults list", text)
    if group:
        return _unknown_key(group.group(1))
    return f"{text}; see {stage}.py --help"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or [] if option]
    allowed = f"; allowed: {', '.join(options)}" if options else ""
    return f"{group}={choice} is not a choice{nearest(choice, options)}{allowed}"


def _unknown_key(key: str) -> str:
    key = key.lstrip("+~")
    section, _, _ = key.rpartition(".")
    choices = [name for name in schema_keys() if name.rpartition(".")[0] == section]
    elsewhere = [name for name in schema_keys() if name.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = nearest(key, choices) or (f"; did you mean {elsewhere[0]}?" if elsewhere else "")
    if not hint and choices:
        hint = f"; {section or 'the top level'} has: {', '.join(name.rpartition('.')[2] for name in choices)}"
    return f"{key} is not a key of the configuration{hint}"


def _allowed(key: str) -> str:
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
        return f"a list of {' or '.join(_words(part) for part in parts)} items"
    if parts:
        return " or ".join(_words(part) for part in parts)
    return str(getattr(hint, "__name__", hint))
