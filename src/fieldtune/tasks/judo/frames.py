"""A folder of frames: each picture with what its folder, its name or a description says of it.

- `FOLDER/seoi-nage/anna__001.jpg`: the folder is the technique
- `FOLDER/standing_seoi_nage_001.jpg`: so is the name, without `standing_` or `ground_` before and a number after
- `FOLDER/**/*.json` (a list of objects) and `*.jsonl` (one a line): descriptions, by their key `image`, a path relative
  to the file they stand in; `technique` goes before the names of folder and file
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fieldtune.errors import UserError
from fieldtune.records import Rejected
from fieldtune.sources.json_text import NotJson, strict_json
from fieldtune.tasks.judo.vocabulary import Vocabulary

SUFFIXES = (".jpg", ".jpeg", ".png")
BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
SETS = re.compile(r"^(?:standing|ground)[ _-]+", re.IGNORECASE)
NUMBER = re.compile(r"[ _-]*\d+$")


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture whose technique is known. name: its path in the folder. said: its description; empty without one.

    place: the file and line of the description, or the picture itself.
    """

    path: Path
    name: str
    technique: str
    place: tuple[str, int]
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str | None:
        """Whom the frame shows or which video it is from: the description's `performer` or `video`, else what stands
        before two underscores in the file's name; None if nothing says it."""
        said = self.said.get("performer") or self.said.get("video")
        before, found, _ = self.path.stem.partition("__")
        return str(said) if said else before if found and before else None


def read_frames(folder: Path, known: Vocabulary) -> Iterator[Frame | Rejected]:
    """Every picture under a folder in the order of their names; those that cannot be used as `Rejected`.

    `UserError` if there is no picture, or for a .json file that is not a list in JSON.
    """
    described: dict[Path, tuple[Path, int, Mapping[str, Any]]] = {}
    for item in _descriptions(folder):
        if isinstance(item, Rejected):
            yield item
            continue
        source, line, said = item
        picture = (source.parent / said["image"]).resolve()
        if not picture.is_file():
            yield Rejected(str(source), line, f"there is no picture {said['image']}", json.dumps(said)[:500])
        elif picture in described:
            yield Rejected(str(source), line, f"{said['image']} is described before", json.dumps(said)[:500])
        else:
            described[picture] = item
    pictures = sorted(path for path in _files(folder) if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise UserError(f"data.frames={folder} holds no picture; allowed: {', '.join(SUFFIXES)}, in it or in folders")
    for path in pictures:
        yield _frame(folder, path, described.get(path.resolve()), known)


def _files(folder: Path) -> list[Path]:
    """All files but hidden ones."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _frame(
    folder: Path, path: Path, described: tuple[Path, int, Mapping[str, Any]] | None, known: Vocabulary
) -> Frame | Rejected:
    name = path.relative_to(folder).as_posix()
    source, line, said = described or (path, 0, {})
    with path.open("rb") as file:
        if not file.read(8).startswith(BEGINNINGS):
            return Rejected(str(path), 0, "the file is neither a PNG nor a JPEG picture", name)
    given = said.get("technique")
    candidates = [given] if isinstance(given, str) else _names(folder, path)
    technique = next((found for text in candidates if (found := known.find(text))), None)
    if technique is None:
        near = known.nearest(candidates[0])
        reason = f"{candidates[0]!r} is no technique that is known; the nearest is {near!r} (or give data.techniques)"
        return Rejected(str(source), line, reason, json.dumps(said) if said else name)
    return Frame(path, name, technique, (str(source), line), said)


def _names(folder: Path, path: Path) -> list[str]:
    """What may name the technique, the file's own name first where the picture lies right in the folder."""
    own = NUMBER.sub("", SETS.sub("", path.stem))
    return [own] if path.parent == folder else [path.parent.name, own]


def _descriptions(folder: Path) -> Iterator[tuple[Path, int, Mapping[str, Any]] | Rejected]:
    """(file, line or number in the list, object) of each description."""
    for path in _files(folder):
        if path.suffix == ".json":
            raw = _decoded(path)
            items = [(number, item, json.dumps(item)) for number, item in enumerate(raw, 1)]
        elif path.suffix == ".jsonl":
            items = []
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
                if not line.strip():
                    continue
                try:
                    items.append((number, strict_json(line), line))
                except NotJson as error:
                    yield Rejected(str(path), number, str(error), line[:500])
        else:
            continue
        for number, item, text in items:
            if isinstance(item, Mapping) and isinstance(item.get("image"), str):
                yield path, number, item
            else:
                yield Rejected(str(path), number, "a description is an object with the path of its 'image'", text[:500])


def _decoded(path: Path) -> list[Any]:
    todo = "give a list of objects with 'image' and 'technique'"
    try:
        raw = strict_json(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, NotJson) as error:
        raise UserError(f"{path}: not JSON ({error}); {todo}") from None
    if not isinstance(raw, list):
        raise UserError(f"{path}: holds {type(raw).__name__}; {todo}")
    return raw
