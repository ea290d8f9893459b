"""A label file in QEVD's form, whichever of its spellings: a list of entries, or an object by video path.

[{"video_path": "./00000017.mp4", "labels": ["squat - knees cave in"],
  "labels_descriptive": ["squat - the knees cave in; press them outward"], "worker_id": 12}]
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fieldtune.errors import UserError
from fieldtune.records import RecordError, Rejected
from fieldtune.sources.json_text import NotJson, strict_json
from fieldtune.tasks.qved.names import NO_EXERCISE, from_path, key, normal, parts_of

WORKERS = "fine_grained_labels_with_worker_ids.json"
EXCERPT = 500  # characters of a refused entry that are kept
# Each fact of an entry and the keys that it goes by; "-" and "_" are one, and so are capitals and small letters.
VIDEO = ("video_path", "video", "video_file", "path", "file")
LABELS = ("labels", "label")
DESCRIPTIVE = ("labels_descriptive", "label_descriptive", "descriptive_labels")
FEEDBACKS = ("feedbacks", "feedback")
EXERCISE = ("exercise", "exercise_name", "class")
WORKER = ("worker_id", "worker", "person_id", "subject_id")
BACKWARD = ("label_backward",)  # of drawn films


@dataclass(frozen=True, slots=True)
class Entry:
    """A film and what is said of it. variation: what the first label says of the exercise; empty if it says nothing.

    said: variation to description, of each label that has its own. number: place in the file, from 1. backward: the
    label of the film if it were shown backward, where that is another one.
    """

    number: int
    path: str
    exercise: str
    variation: str
    answer: str
    said: Mapping[str, str]
    worker: str
    backward: str


def read_entries(path: Path, known: Mapping[str, str], folders: frozenset[str]) -> Iterator[Entry | Rejected]:
    """The entries of a label file in its order, those that cannot be used as `Rejected`.

    known: exercise by video path (a manifest). folders: names of folders that name no exercise. UserError for a file
    that is not in this form at all.
    """
    seen: set[str] = set()
    for number, raw in enumerate(_raw_entries(path), 1):
        try:
            entry = _entry(number, raw, known, folders)
            if plain(entry.path) in seen:
                raise RecordError(f"the video {entry.path} is in an earlier entry")
            seen.add(plain(entry.path))
            yield entry
        except RecordError as error:
            yield Rejected(str(path), number, f"item {number}: {error}", json.dumps(raw)[:EXCERPT])


def check_entry(raw: Any) -> None:
    """RecordError says what is wrong with an entry alone."""
    if not (_get(raw, WORKER) and _get(raw, LABELS + DESCRIPTIVE + FEEDBACKS) is None):  # a line of workers
        _entry(1, raw, {}, frozenset())


def read_workers(path: Path) -> dict[str, str]:
    """Worker by video path, of a file of {video_path, worker_id}; UserError if it is none."""
    given = [(_get(raw, VIDEO), _worker(raw)) for raw in _raw_entries(path)]
    found = _by_video((video, worker) for video, worker in given if isinstance(video, str) and worker)
    if not found:
        raise UserError(f"{path} has no entry with a video_path and a worker_id; give such a file, or leave it out")
    return found


def read_manifest(path: Path) -> dict[str, str]:
    """Exercise by video path, of an object {path: exercise}; none if the file is something else."""
    raw = _decoded(path)
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        return {}
    return _by_video((name, normal(value)) for name, value in raw.items())


def _by_video(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Values by path, and by file name where all paths of that name agree."""
    paths = {plain(video): value for video, value in pairs}
    names: dict[str, set[str]] = defaultdict(set)
    for path, value in paths.items():
        names[PurePath(path).name].add(value)
    return {name: values.pop() for name, values in names.items() if len(values) == 1} | paths


def plain(path: str) -> str:
    """A path without "./" and with "/" alone: what entries of two files are joined by."""
    return PurePath(path.strip().replace("\\", "/")).as_posix()


def of_video(known: Mapping[str, str], path: str) -> str:
    """What a mapping by video path says of a video: by its path, else by its file name."""
    return known.get(plain(path)) or known.get(PurePath(plain(path)).name, "")


def _decoded(path: Path) -> Any:
    try:
        return strict_json(path.read_text(encoding="utf-8-sig"))
    except NotJson as error:
        raise UserError(f"{path}: {error}; give a JSON file in QEVD's form (docs/qved.md)") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}); give a JSON file in QEVD's form (docs/qved.md)") from None


def _raw_entries(path: Path) -> list[Any]:
    raw = _decoded(path)
    if isinstance(raw, dict):
        lists = [value for value in raw.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        raw = lists[0] if len(lists) == 1 else [_keyed(name, value) for name, value in raw.items()]
    if not isinstance(raw, list) or not raw:
        what = "an empty list" if raw == [] else f"JSON of type {type(raw).__name__}"
        raise UserError(f"{path} holds {what}; give a list of entries with video_path and labels (docs/qved.md)")
    return raw


def _keyed(name: str, value: Any) -> Any:
    """An entry of an object by video path: its facts, its labels, or its worker."""
    if isinstance(value, dict):
        return {"video_path": name, **value}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"video_path": name, "worker_id": value}
    return {"video_path": name, "labels": value}


def _get(raw: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(raw, dict):
        return None
    given = {str(name).casefold().replace("-", "_"): value for name, value in raw.items() if value is not None}
    return next((given[name] for name in names if name in given), None)


def _texts(raw: Any, names: tuple[str, ...]) -> list[str]:
    value = _get(raw, names)
    texts = [value] if isinstance(value, str) else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RecordError(f"'{names[0]}' must be a text or a list of texts")
    return [text.strip() for text in texts if text.strip()]


def _worker(raw: Any) -> str:
    value = _get(raw, WORKER)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _entry(number: int, raw: Any, known: Mapping[str, str], folders: frozenset[str]) -> Entry:
    if not isinstance(raw, dict):
        raise RecordError(f"an entry must be an object, got {type(raw).__name__}")
    path = _get(raw, VIDEO)
    if not isinstance(path, str) or not path.strip():
        raise RecordError(f"there is no video path; give '{VIDEO[0]}'")
    labels, descriptive = _texts(raw, LABELS), _texts(raw, DESCRIPTIVE)
    answer = "\n".join(descriptive) or "".join(labels[:1]) or "\n".join(_texts(raw, FEEDBACKS))
    if not answer:
        raise RecordError("there is nothing to learn; give 'labels_descriptive', 'labels' or 'feedbacks'")
    exercise = _exercise(raw, path, labels or descriptive, known, folders)
    said = dict(zip(map(_variation, labels), map(_variation, descriptive), strict=False))
    variation = _variation(labels[0]) if labels else ""
    if key(variation) == key(exercise):
        variation = ""
    said = {name: text for name, text in said.items() if name and key(name) != key(exercise)}
    backward = "".join(_texts(raw, BACKWARD)[:1])
    return Entry(number, path.strip(), exercise, variation, answer, said, _worker(raw), backward)


def _variation(label: str) -> str:
    return parts_of(label)[1]


def _exercise(
    raw: Mapping[str, Any], path: str, labels: list[str], known: Mapping[str, str], folders: frozenset[str]
) -> str:
    """By the entry's own metadata, the manifest, the label up to its dash, the path; last the label as a whole."""
    beside = raw.get("metadata")
    given = _get(raw, EXERCISE) or _get(beside, EXERCISE)
    if isinstance(given, str) and given.strip():
        return normal(given)
    found = (
        of_video(known, path)
        or (parts_of(labels[0])[0] if labels else "")
        or from_path(PurePath(plain(path)), NO_EXERCISE | folders)
        or (normal(labels[0]) if labels else "")
    )
    if not found:
        raise RecordError("no exercise is named; give 'exercise', or a label as in 'squat - shallow depth'")
    return found
