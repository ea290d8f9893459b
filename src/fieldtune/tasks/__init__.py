"""The fields of work. Each package here is a task: its config, its examples, how an answer is scored."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fieldtune.config import DataConfig
from fieldtune.errors import ConfigError
from fieldtune.tasks.base import Task


def names() -> list[str]:
    """The tasks there are: the packages in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def _import(task: str | None, module: str) -> object:
    if task not in names():
        raise ConfigError([f"data.task={task} is not a task; allowed: {', '.join(names())}"])
    return import_module(f"{__name__}.{task}.{module}")


def data_schema(task: str | None) -> type[DataConfig]:
    """The schema of the data section of a task."""
    schema: type[DataConfig] = vars(_import(task, "config"))["Data"]
    return schema


def get(task: str) -> Task:
    """The task itself."""
    found: Task = vars(_import(task, "task"))["TASK"]
    return found


def file_checks() -> Iterator[Callable[[Mapping[str, Any]], Sequence[tuple[str, str]] | None]]:
    """What the tasks know of files: their `files.problems`, where a task has one.

    It takes a decoded JSON object and gives (field, what was given and what is allowed) of all that is wrong with it,
    or None for an object that is not the task's.
    """
    for name in names():
        if find_spec(f"{__name__}.{name}.files") is not None:
            yield vars(_import(name, "files"))["problems"]


def answer_schemas(task: str) -> dict[str, dict[str, Any]]:
    """JSON schemas of a task's answers by kind: its `formats.schemas()`; none where a task answers in plain text."""
    if find_spec(f"{__name__}.{task}.formats") is None:
        return {}
    found: dict[str, dict[str, Any]] = vars(_import(task, "formats"))["schemas"]()
    return found
