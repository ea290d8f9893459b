"""Hydra's side: where the YAML is, which schemas it is composed onto, and its errors in one clear line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from fieldtune import tasks
from fieldtune.config import Config
from fieldtune.errors import ConfigError
from fieldtune.keys import allowed, nearest, unknown_key
from fieldtune.loading import load
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


def composed(stage: str, overrides: list[str], conf: Path | None = None) -> Config:
    """The configuration that a stage's script would compose of these words; `ConfigError` if they are wrong.

    conf: a folder of YAML files in place of `conf_dir`.
    """
    register_schemas()
    with explained(stage), initialize_config_dir(str(conf or conf_dir()), version_base="1.3"):
        return load(compose(stage, overrides=overrides))


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
            return unknown_key(str(cause.full_key))
        if isinstance(cause, ValidationError) and cause.full_key:
            return f"{cause.full_key}: {_first_line(cause)}; allowed: {allowed(str(cause.full_key))}"
    text = " ".join(_first_line(cause) for cause in chain[:1])
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        return unknown_key(key.group(1))
    group = re.search(r"Could not override '?([\w/]+)'?\.? ?No match in the defaults list", text)
    if group:
        return unknown_key(group.group(1))
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
    listed = f"; allowed: {', '.join(options)}" if options else ""
    return f"{group}={choice} is not a choice{nearest(choice, options)}{listed}"
