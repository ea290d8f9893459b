"""Which run evaluate.py looks at: the one given by `run=`, or the newest finished one of the experiment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fieldtune.config import Config, to_mapping
from fieldtune.errors import ConfigError, UserError
from fieldtune.loading import load
from fieldtune.runs import Run, find_run, list_runs

FROM_RUN = ("data", "model", "adapter", "trainer")


def adopt_run(config: Config, overrides: list[str]) -> tuple[Config, Run]:
    """The configuration with the run's own data, model, adapter, trainer, name and seed; and the run.

    A section that the command line names must agree with the run: it chooses among the experiment's runs, and
    with `run=` it is refused, since the run decides.
    """
    named = _named_sections(overrides)
    if config.run is not None:
        if named:
            raise ConfigError([f"{section}=... cannot be given with run=: the run decides it" for section in named])
        run = find_run(Path(config.output_dir), config.run)
    else:
        run = _must_find(config, overrides)
    theirs = load(run.config())
    taken = {section: getattr(theirs, section) for section in (*FROM_RUN, "name", "seed", "dataset_dir")}
    return replace(config, run=str(run.folder), **taken), run


def _named_sections(overrides: list[str]) -> list[str]:
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    sections = [key.partition("@")[0].partition(".")[0] for key in keys]
    return [section for section in FROM_RUN if section in sections]


def newest_run(config: Config, overrides: list[str]) -> Run | None:
    """The newest finished training of the configuration's name, with the same sections as those that are named."""
    named = _named_sections(overrides)
    for run in reversed(list_runs(Path(config.output_dir))):
        if run.stage != "train" or run.name != config.name or run.status != "finished":
            continue
        theirs = load(run.config())
        if all(to_mapping(getattr(theirs, section)) == to_mapping(getattr(config, section)) for section in named):
            return run
    return None


def _must_find(config: Config, overrides: list[str]) -> Run:
    found = newest_run(config, overrides)
    if found is not None:
        return found
    named = _named_sections(overrides)
    others = named and newest_run(config, []) is not None
    which = f" with this {', '.join(named)}" if others else ""
    raise UserError(
        f"no finished run of {config.name}{which} in {config.output_dir}; run train.py with the same words first, "
        "or give run=FOLDER (fieldtune runs list)"
    )
