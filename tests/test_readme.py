"""The documentation's commands are real: they compose, pass the checks, and their links and make targets exist."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldtune import cli
from fieldtune.checks import check
from fieldtune.errors import ConfigError
from tests.commands import ROOT, compose

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))
STAGES = ("prepare", "train", "evaluate")
LINKS = re.compile(r"\]\(([^)\s]+)\)")

# What a check may say on a machine without the data, the GPU or the packages of the reader's.
OF_THE_MACHINE = ("the data set of this configuration", "hardware=gpu: no NVIDIA driver", "model.weights=run:")
PACKAGE_MISSING = re.compile(r"model\.weights=package:\w+ needs the package")


def commands(page: Path) -> Iterator[str]:
    """Each command in a code block or in backticks, `$ ` and `&&` taken away."""
    for line in page.read_text(encoding="utf-8").splitlines():
        found = [line.strip()] if line.startswith("    ") else re.findall(r"`([^`]+)`", line)
        for text in found:
            for command in text.removeprefix("$ ").split("&&"):
                if re.match(r"(python \w+\.py|fieldtune|make)( |$)", command.strip()):
                    yield command.strip()


ALL = sorted({(page.name, command) for page in PAGES for command in commands(page)})
COMPOSED = [
    (page, command)
    for page, command in ALL
    if re.match(rf"(python ({'|'.join(STAGES)})\.py|fieldtune ({'|'.join(STAGES)}))\b", command)
]
BARE = (
    "fieldtune predict",
    "fieldtune serve",
    "fieldtune chat",
    "fieldtune export",
)  # named in a sentence, not given as a command line
OTHERS = [pair for pair in ALL if pair[1].startswith("fieldtune ") and pair not in COMPOSED and pair[1] not in BARE]
TYPOS = [pair for pair in COMPOSED if "learing_rate" in pair[1]]  # shown as what happens to a typo


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the commands name."""
    row = {"prompt": "Which grip?", "response": "The overlapping one."}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (tmp_path / "feedback.jsonl").touch()
    for folder in ("my_golf", "logs"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(command: str) -> tuple[str, list[str], bool]:
    """Stage, overrides and whether it is a sweep; of a sweep the first value of each key."""
    program, *words = shlex.split(command, comments=True)
    stage = words.pop(0).removesuffix(".py")
    assert program in ("python", "fieldtune")
    multirun = "--multirun" in words
    plain = [word for word in words if not word.startswith("--") and word != "job"]
    return stage, [word.partition(",")[0] for word in plain] if multirun else plain, multirun


def test_there_is_something_to_check() -> None:
    assert len(COMPOSED) >= 25 and len(OTHERS) >= 4 and len(TYPOS) == 1


@pytest.mark.parametrize(("page", "command"), [pair for pair in COMPOSED if pair not in TYPOS])
def test_a_documented_command_composes_and_passes_the_checks(reader: Path, page: str, command: str) -> None:
    stage, words, multirun = words_of(command)
    try:
        check(compose(stage, *words), stage, multirun=multirun)
    except ConfigError as error:
        of_the_reader = [
            problem
            for problem in error.problems
            if not problem.startswith(OF_THE_MACHINE) and not PACKAGE_MISSING.match(problem)
        ]
        assert of_the_reader == []


@pytest.mark.parametrize(("page", "command"), TYPOS)
def test_the_shown_typo_says_what_is_shown(page: str, command: str) -> None:
    stage, words, _ = words_of(command)
    with pytest.raises(ConfigError) as caught:
        compose(stage, *words)
    assert str(caught.value) in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "command"), OTHERS)
def test_a_documented_fieldtune_command_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], page: str, command: str
) -> None:
    # In an empty folder, so that a command whose words are right ends at the first file that is not there.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # nor on the hub
    monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
    try:
        cli.main()
    except SystemExit:
        said = capsys.readouterr().err
        assert re.search(
            r"is not a file|is not a run folder|does not exist|is not prepared|no finished|HF_HUB_OFFLINE", said
        ), said


def test_make_targets_exist() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {command.split()[1] for _, command in ALL if re.match(r"make \w", command)}
    assert {"demo", "test"} <= named <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_relative_links_exist(page: Path) -> None:
    for link in LINKS.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_pages_stay_short_and_plain(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) < (200 if page.name == "README.md" else 300)
    assert "\u2014" not in text
