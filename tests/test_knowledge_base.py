"""The knowledge base that comes with fieldtune: complete, original from area to area, free of figures for scores."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from fieldtune.resources import resource
from fieldtune.tasks.golf.knowledge import SHIPPED, Area, knowledge_at
from fieldtune.tasks.golf.swing import AREAS, SEVERITIES, SWING_TYPES

FOLDER = resource(SHIPPED)
AREA_FOLDERS = sorted(path for path in FOLDER.iterdir() if path.is_dir())


@pytest.fixture(params=list(AREAS))
def area(request: pytest.FixtureRequest) -> Area:
    return knowledge_at(None).areas[request.param]


def test_all_areas_are_there() -> None:
    assert list(knowledge_at(None).areas) == list(AREAS)
    assert len(AREA_FOLDERS) == len(AREAS)


@pytest.mark.parametrize("folder", AREA_FOLDERS, ids=lambda path: path.name)
def test_an_area_is_treated_at_length(folder: Path) -> None:
    words = sum(len(path.read_text(encoding="utf-8").split()) for path in folder.glob("*.md"))
    assert words >= 1500


def test_an_area_has_all_that_feedback_needs(area: Area) -> None:
    assert len(area.ideal) >= 6 and len(area.why) >= 5
    assert all(len(area.bands[band]) >= 4 for band in SEVERITIES)
    assert all(len(area.swing_types[kind]) >= 3 for kind in SWING_TYPES)
    assert all(len(sentences) >= 2 for sentences in area.links.values()) and len(area.links) == 7
    assert len(area.feels) >= 8 and len(area.progress) >= 6 and len(area.safety) >= 4 and len(area.first_steps) >= 5


def test_faults_have_signs_causes_feels_and_drills(area: Area) -> None:
    assert len(area.faults) >= 6
    for fault in area.faults:
        assert len(fault.shows) >= 3 and len(fault.causes) >= 3 and len(fault.feel) >= 2 and len(fault.drills) >= 2
        assert not fault.name.endswith(".")


def test_drills_can_be_done_as_they_are_written(area: Area) -> None:
    assert len(area.drills) >= 8
    for drill in area.drills:
        assert len(drill.steps) >= 3 and drill.success and drill.safety and drill.equipment
        assert re.match(r"\d", drill.dose) and not drill.dose.endswith(".")
        assert len(drill.brief.split()) <= 14


def test_drill_names_are_unique() -> None:
    names = [drill.name.casefold() for area in knowledge_at(None).areas.values() for drill in area.drills]
    assert len(names) == len(set(names))


def test_no_sentence_stands_in_two_places() -> None:
    places = defaultdict(list)
    for folder in AREA_FOLDERS:
        for path in sorted(folder.glob("*.md")):
            # Two drills may well have the same dose or ask for the same club: those are no sentences.
            text = re.sub(r"(?m)^ +(dose|equipment|drills):.*$|^#+ .*$", "\n", path.read_text(encoding="utf-8"))
            for sentence in re.split(r"[.!?\n]", re.sub(r"(?m)^ *-? *\w+: |^ *- ", "\n", text)):
                words = re.findall(r"[a-z0-9'-]+", sentence.casefold())
                if len(words) >= 4:
                    places[" ".join(words)].append(f"{folder.name}/{path.name}")
    assert len(places) > 1500
    assert {text: where for text, where in places.items() if len(where) > 1} == {}


def test_no_scores_are_written_in_it() -> None:
    for path in FOLDER.rglob("*.md"):
        assert re.search(r"\d\s*%|\bpercent\b|\b0\.\d", path.read_text(encoding="utf-8")) is None, path
