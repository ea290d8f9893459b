"""The golf knowledge base: a folder of Markdown files with YAML front matter, read and checked as a whole.

Each area has a folder with overview.md, faults.md, drills.md and cues.md; the files that come with fieldtune show the
format. Only the front matter is used for feedback; the prose below it is for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fieldtune.errors import UserError
from fieldtune.resources import resource
from fieldtune.tasks.golf.front_matter import KINDS, FrontMatter, Sentences
from fieldtune.tasks.golf.swing import AREAS, SEVERITIES, SWING_TYPES

SHIPPED = "knowledge/golf_instruction"
LEAST_DRILLS = 2
LEAST_FAULTS = 2


@dataclass(frozen=True, slots=True)
class Drill:
    """One exercise. `dose` is a fragment such as "3 sets of 10 swings, 3 days a week"."""

    id: str
    name: str
    equipment: str
    brief: str
    steps: Sentences
    dose: str
    success: str
    safety: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. `name` is a noun phrase; `drills` are those that mend it."""

    id: str
    name: str
    shows: Sentences
    causes: Sentences
    effect: str
    feel: Sentences
    drills: tuple[Drill, ...]


@dataclass(frozen=True, slots=True)
class Area:
    """What is known of one scored area. `links`: other area -> (how it acts when weak, how when strong)."""

    key: str
    ideal: Sentences
    why: Sentences
    bands: Mapping[str, Sentences]
    swing_types: Mapping[str, Sentences]
    links: Mapping[str, Sentences]
    faults: tuple[Fault, ...]
    drills: tuple[Drill, ...]
    feels: Sentences
    progress: Sentences
    safety: Sentences
    first_steps: Sentences


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The areas of a folder, in the order of `AREAS`."""

    folder: Path
    areas: Mapping[str, Area]


def load_knowledge(folder: Path) -> Knowledge:
    """Read a knowledge base; `UserError` names every broken file, one line each.

    Some of the eight areas are enough; none is an error.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data.knowledge is a folder with one folder for each golf area")
    problems: list[str] = []
    found: dict[str, Area] = {}
    for home in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not any(home.glob("*.md")):
            continue
        area = _read_area(home, problems)
        if area is None:
            continue
        if area.key in found:
            problems.append(f"{home}: a second folder for the area {area.key}; keep one")
        found[area.key] = area
    problems += _shared_names(found)
    if problems:
        raise UserError("\n".join(problems))
    if not found:
        names = ", ".join(f"{kind}.md" for kind in KINDS)
        raise UserError(f"{folder}: no area found; give a folder with {names} for at least one of {', '.join(AREAS)}")
    return Knowledge(folder, {key: found[key] for key in AREAS if key in found})


@lru_cache(maxsize=4)
def knowledge_at(folder: str | None) -> Knowledge:
    """The knowledge base of `data.knowledge`, read once; null is the one that comes with fieldtune."""
    return load_knowledge(resource(SHIPPED) if folder is None else Path(folder))


def _shared_names(areas: Mapping[str, Area]) -> list[str]:
    """A drill's name tells its area, so two areas must not share one."""
    owners: dict[str, str] = {}
    problems = []
    for area in areas.values():
        for drill in area.drills:
            owner = owners.setdefault(drill.name.casefold(), area.key)
            if owner != area.key:
                problems.append(f"drills.md of {area.key}: the name {drill.name} is taken by {owner}; choose another")
    return problems


def _read_area(home: Path, problems: list[str]) -> Area | None:
    """The area of a folder; None once a problem was added."""
    before = len(problems)
    files = {kind: FrontMatter.read(home / f"{kind}.md", kind, problems) for kind in KINDS}
    overview, faults, drills, cues = (files[kind] for kind in KINDS)
    keys = {file.area: file for file in files.values() if file is not None}
    if overview is not None:
        for key, file in keys.items():
            if key != overview.area:
                file.problem(f"area is {key}, but overview.md beside it says {overview.area}")
    known = {drill.id: drill for drill in _drills(drills)} if drills is not None else {}
    mended = _faults(faults, known if drills is not None else None) if faults is not None else ()
    if overview is None or cues is None:
        return None
    others = tuple(key for key in AREAS if key != overview.area)
    area = Area(
        key=overview.area,
        ideal=overview.sentences(overview.data, "ideal", 2),
        why=overview.sentences(overview.data, "why", 2),
        bands=overview.table("bands", SEVERITIES, 2),
        swing_types=overview.table("swing_types", SWING_TYPES, 1),
        links=overview.table("links", others, 2),
        faults=mended,
        drills=tuple(known.values()),
        feels=cues.sentences(cues.data, "feels", 2),
        progress=cues.sentences(cues.data, "progress", 1),
        safety=cues.sentences(cues.data, "safety", 1),
        first_steps=cues.sentences(cues.data, "first_steps", 1),
    )
    return area if len(problems) == before else None


def _drills(file: FrontMatter) -> list[Drill]:
    drills = []
    for where, item in file.items("drills", LEAST_DRILLS):
        texts = {key: file.text(item, key, where) for key in ("name", "equipment", "dose")}
        said = {key: file.sentence(item, key, where) for key in ("brief", "success", "safety")}
        drills.append(Drill(id=str(item.get("id")), steps=file.sentences(item, "steps", 2, where), **texts, **said))
        if not re.search(r"\w Drill$", texts["name"]):
            file.problem(f"{where}: name {texts['name']!r} must end with 'Drill', as in 'Rope Swing Drill'")
    return drills


def _faults(file: FrontMatter, known: Mapping[str, Drill] | None) -> tuple[Fault, ...]:
    """known: the area's drills by id; None if drills.md could not be read, and ids cannot be checked."""
    faults = []
    for where, item in file.items("faults", LEAST_FAULTS):
        ids = item.get("drills")
        if not isinstance(ids, list) or not ids:
            file.problem(f"{where}: drills must be a list of drill ids")
            ids = []
        for wrong in [] if known is None else [name for name in ids if str(name) not in known]:
            file.problem(f"{where}: drill {wrong} is not in drills.md; it has {', '.join(known or ())}")
        faults.append(
            Fault(
                id=str(item.get("id")),
                name=file.text(item, "name", where),
                shows=file.sentences(item, "shows", 1, where),
                causes=file.sentences(item, "causes", 1, where),
                effect=file.sentence(item, "effect", where),
                feel=file.sentences(item, "feel", 1, where),
                drills=tuple(known[str(name)] for name in ids if str(name) in known) if known else (),
            )
        )
    return tuple(faults)
