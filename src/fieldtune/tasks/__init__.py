"""The fields of work. Each package here is a task: its config, its examples, how an answer is scored."""

from __future__ import annotations

import pkgutil
from importlib import import_module

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
