"""Every file under conf: composed and loaded in all three stages, and no typo in it goes unseen."""

from __future__ import annotations

import dataclasses
import re
import shutil
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fieldtune import tasks
from fieldtune.composition import conf_dir
from fieldtune.config import Config, MixturePart, data_key, to_mapping, to_yaml
from fieldtune.errors import ConfigError
from fieldtune.loading import load
from fieldtune.resources import resource
from tests.commands import compose

STAGES = ("prepare", "train", "evaluate")
FILES = sorted(str(path.relative_to(conf_dir())) for path in conf_dir().rglob("*.yaml"))
CHOICES = [file.removesuffix(".yaml") for file in FILES if "/" in file]
EXPERIMENTS = [choice.partition("/")[2] for choice in CHOICES if choice.startswith("experiment/")]
ROOTS = [file.removesuffix(".yaml") for file in FILES if "/" not in file]

FIELDS = {  # the section of the configuration that a group fills
    group: group for group in ("adapter", "data", "evaluation", "hardware", "model", "tracking", "trainer")
}


def words_for(choice: str) -> list[str]:
    """The words that choose a file, and those that it needs beside."""
    group, _, name = choice.partition("/")
    path = ["data.path=mine.jsonl"]
    needed = {
        "data/jsonl": path,
        "data/mobilegpt": path,
        "data/judo": ["data.frames=frames"],
        "model/hub": ["model.weights=hub:owner/name"],
    }
    return [f"{group}={name}", *needed.get(choice, [])]


def test_every_file_is_counted() -> None:
    assert len(FILES) == 79, "a new file under conf is covered here by itself: put the new number"
    assert {choice.partition("/")[0] for choice in CHOICES} == {*FIELDS, "experiment"}
    assert set(ROOTS) == {"base", *STAGES}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_is_composed_in_each_stage(choice: str) -> None:
    config, *others = (compose(stage, *words_for(choice)) for stage in STAGES)
    assert all(other == config for other in others)  # the same words are the same configuration
    group, _, name = choice.partition("/")
    written = yaml.safe_load((conf_dir() / f"{choice}.yaml").read_text(encoding="utf-8"))
    values = {key: value for key, value in written.items() if key != "defaults"}
    section: Any = to_mapping(config) if group == "experiment" else to_mapping(getattr(config, FIELDS[group]))
    assert values, f"{choice}.yaml chooses nothing"
    for key, value in values.items():
        if not (isinstance(value, str) and "${" in value):
            assert section[key] == value, f"{choice}.yaml: {key}"
    if group == "model":
        assert config.model.name == name


def test_bare_scripts_run_the_demo() -> None:
    assert compose("train") == compose("train", "experiment=golf_demo")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A copy of conf to write into."""
    return Path(shutil.copytree(conf_dir(), tmp_path / "conf"))


def add_typo(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\nlearing_ratio: 1\n")


@pytest.mark.parametrize("choice", CHOICES)
def test_a_typo_in_a_choice_is_named(choice: str, conf: Path) -> None:
    add_typo(conf / f"{choice}.yaml")
    with pytest.raises(ConfigError, match=r"learing_ratio is not a key of the configuration") as caught:
        compose("train", *words_for(choice), conf=conf)
    assert len(caught.value.problems) == 1
    group = choice.partition("/")[0]
    if group != "experiment":
        assert f"{group}.learing_ratio" in str(caught.value)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_typo_in_a_section_of_an_experiment_is_named(experiment: str, conf: Path) -> None:
    with (conf / "experiment" / f"{experiment}.yaml").open("a", encoding="utf-8") as file:
        file.write("\ntrainer:\n  learing_rate: 1\n")
    with pytest.raises(ConfigError, match=r"trainer\.learing_rate is not a key.*did you mean trainer\.learning_rate"):
        compose("train", f"experiment={experiment}", conf=conf)


@pytest.mark.parametrize("name", ROOTS)
def test_a_typo_in_a_stage_is_named(name: str, conf: Path) -> None:
    add_typo(conf / f"{name}.yaml")
    with pytest.raises(ConfigError, match=r"learing_ratio is not a key of the configuration"):
        compose("train" if name == "base" else name, conf=conf)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_file_begins_with_what_it_is(choice: str) -> None:
    lines = (conf_dir() / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_how_it_is_run_and_what_to_expect(name: str) -> None:
    lines = (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    header = []
    for line in lines:
        if not line.startswith("#"):
            break
        header.append(line)
    assert header[0] == "# @package _global_"
    for script in ("prepare.py", "train.py", "evaluate.py"):
        assert re.search(rf"^# .*python {script}", "\n".join(header), re.M)
    commands = next(line for line in header if "train.py" in line)
    assert f"experiment={name}" in commands or name == "golf_demo"  # bare scripts run the demo
    assert any(line.startswith("# Expect: ") for line in header)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_written_and_read_back_is_equal(name: str) -> None:
    config = compose("train", f"experiment={name}", "data.mixture=[{name: club, path: club.jsonl, weight: 2}]")
    assert config.data.mixture == [MixturePart(name="club", path="club.jsonl", weight=2.0)]
    text = to_yaml(config)
    assert load(yaml.safe_load(text)) == config
    assert to_yaml(load(yaml.safe_load(text))) == text


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, Enum):
        return next(member for member in type(value) if member is not value)
    if isinstance(value, list):
        return [*value, MixturePart(name="club", path="club.jsonl")] if not value else list(reversed(value))
    return f"{value or ''}x"


WORDS = {
    "fitness": ("data=fitness",),
    "golf": ("experiment=golf_gpt2",),
    "jsonl": ("data=jsonl", "data.path=mine.jsonl"),
    "qved": ("data=qved_films", "data.exercises=[squat,lunge]"),
    "judo": ("data=judo_stills",),
}


@cache
def config_of(task: str) -> Config:
    return compose("train", *WORDS[task])


def data_fields() -> list[tuple[str, str]]:
    return [(task, item.name) for task in tasks.names() for item in dataclasses.fields(tasks.data_schema(task))]


@pytest.mark.parametrize(("task", "name"), data_fields())
def test_what_decides_the_data_set_decides_its_key(task: str, name: str) -> None:
    config = config_of(task)
    value = getattr(config.data, name)
    other = dataclasses.replace(config.data, **{name: ["x"] if value == [] and name != "mixture" else changed(value)})
    assert other != config.data
    same = data_key(dataclasses.replace(config, data=other)) == data_key(config)
    assert same == (name in ("train_on_prompt", "preview_rows"))


def test_the_seed_decides_the_data_set_too() -> None:
    config = config_of("golf")
    assert data_key(dataclasses.replace(config, seed=config.seed + 1)) != data_key(config)


@pytest.mark.parametrize(
    "name", [item.name for item in dataclasses.fields(Config) if item.name not in ("data", "seed")]
)
def test_nothing_outside_the_data_section_decides_the_data_set(name: str) -> None:
    config = config_of("golf")
    value = getattr(config, name)
    if not dataclasses.is_dataclass(value):
        assert data_key(dataclasses.replace(config, **{name: changed(value)})) == data_key(config)
        return
    for item in dataclasses.fields(value):
        section = dataclasses.replace(value, **{item.name: changed(getattr(value, item.name))})  # type: ignore[type-var]
        assert data_key(dataclasses.replace(config, **{name: section})) == data_key(config), item.name


def test_shipped_resources_are_found() -> None:
    assert conf_dir() == resource("conf") and (conf_dir() / "base.yaml").is_file()
