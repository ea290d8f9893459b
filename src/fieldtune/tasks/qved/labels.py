"""From a label file and a folder of films to examples: the films found, a class thinned, persons kept together."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldtune.errors import UserError
from fieldtune.records import Example, Media, Message, RecordError, Rejected, file_sha256
from fieldtune.tasks.qved.config import Data
from fieldtune.tasks.qved.entries import WORKERS, Entry, of_video, read_entries, read_manifest, read_workers
from fieldtune.tasks.qved.names import key
from fieldtune.tasks.qved.places import Places

log = logging.getLogger("fieldtune")

SOURCE = "qved"
MANIFEST = "manifest.json"  # in data.videos: exercise by path
DESCRIPTIONS = 3  # wordings of one variation that a row carries for scoring


@dataclass(frozen=True, slots=True)
class _Filmed:
    """An entry whose film is there."""

    entry: Entry
    film: Path
    worker: str


def read_labels(labels: Path, videos: Path | None, data: Data, seed: int) -> Iterator[Example | Rejected]:
    """An example for each entry whose film is found, at most `data.videos_per_class` of an exercise; the rest refused.

    Order: that of the file, what is refused first. UserError for a file that cannot be read, for an exercise that
    nobody does and where no film is found at all.
    """
    places, refused = Places(labels, videos), 0
    manifest = read_manifest(videos / MANIFEST) if videos is not None and (videos / MANIFEST).is_file() else {}
    folders = frozenset(folder.resolve().name.casefold() for folder in (labels.parent, videos) if folder is not None)
    workers = _workers(labels, data)
    filmed: list[_Filmed] = []
    for item in read_entries(labels, manifest, folders):
        if isinstance(item, Rejected):
            yield item
            continue
        try:
            worker = item.worker or of_video(workers, item.path)
            filmed.append(_Filmed(item, places.find(item.path), worker))
        except RecordError as error:
            refused += 1
            yield Rejected(str(labels), item.number, f"item {item.number}: {error}", item.answer[:500])
    if refused and not filmed:
        raise UserError(
            f"{labels}: none of its {refused:,} videos is there; looked in {places.tried}; give data.videos=FOLDER"
        )
    used = _thinned(_wanted(filmed, data.exercises), data.videos_per_class, seed)
    _tell(filmed, used, refused)
    names, said = _names(filmed), _descriptions(filmed)
    for one in used:
        yield _example(one, data, names, said[key(one.entry.exercise)])


def _workers(labels: Path, data: Data) -> Mapping[str, str]:
    if data.workers is not None:
        return read_workers(Path(data.workers))
    beside = labels.parent / WORKERS
    return read_workers(beside) if beside.is_file() and beside.resolve() != labels.resolve() else {}


def _wanted(filmed: Sequence[_Filmed], exercises: Sequence[str]) -> Sequence[_Filmed]:
    if not exercises:
        return filmed
    there = {key(item.entry.exercise) for item in filmed}
    if missing := [name for name in exercises if key(name) not in there]:
        names = ", ".join(sorted({item.entry.exercise for item in filmed})[:20])
        raise UserError(f"data.exercises has {missing[0]!r}, which no film shows; there are: {names}")
    wanted = set(map(key, exercises))
    return [item for item in filmed if key(item.entry.exercise) in wanted]


def _thinned(filmed: Sequence[_Filmed], most: int, seed: int) -> list[_Filmed]:
    """At most so many of each exercise, in the order of the file. What is drawn does not depend on other exercises."""
    classes: dict[str, list[_Filmed]] = defaultdict(list)
    for item in filmed:
        classes[key(item.entry.exercise)].append(item)
    used = []
    for name, items in classes.items():
        used += random.Random(f"qved {seed} {name}").sample(items, most) if len(items) > most else items
    return sorted(used, key=lambda item: item.entry.number)


def _tell(filmed: Sequence[_Filmed], used: Sequence[_Filmed], missing: int) -> None:
    exercises = len({key(item.entry.exercise) for item in used})
    log.info("films: %s found, %s missing; %s are used, of %s exercises", len(filmed), missing, len(used), exercises)
    persons = {item.worker for item in used if item.worker}
    known = sum(bool(item.worker) for item in used)
    if persons:
        log.info("the split keeps %s persons together (known for %s of %s films)", len(persons), known, len(used))
    else:
        log.info("no worker ids: one person's films may be in two splits (data.workers=FILE gives them)")


def _names(filmed: Sequence[_Filmed]) -> dict[str, str]:
    """By exercise: the first of its spellings."""
    names: dict[str, str] = {}
    for item in filmed:
        names.setdefault(key(item.entry.exercise), item.entry.exercise)
    return names


def _descriptions(filmed: Sequence[_Filmed]) -> dict[str, dict[str, list[str]]]:
    """By exercise: each variation and how it is described, the first few wordings."""
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for item in filmed:
        entry, known = item.entry, found[key(item.entry.exercise)]
        if entry.variation:
            known.setdefault(entry.variation, [])
        for name, text in entry.said.items():
            texts = known.setdefault(name, [])
            if text not in texts and len(texts) < DESCRIPTIONS:
                texts.append(text)
    return found


def _example(item: _Filmed, data: Data, names: Mapping[str, str], said: Mapping[str, Sequence[str]]) -> Example:
    entry, name = item.entry, f"{SOURCE}-{item.entry.number:06d}"
    film = Media("video", str(item.film), file_sha256(item.film))
    own = {fault: [text, *(other for other in said[fault] if other != text)] for fault, text in entry.said.items()}
    exercise = names[key(entry.exercise)]
    meta = {
        "exercise": exercise,
        "fault": entry.variation,
        "label": f"{exercise} - {entry.variation}" if entry.variation else exercise,
        # What else there is to name: scoring gives nothing to an answer that names several.
        "exercises": sorted(names.values()),
        "faults": {fault: list(texts) for fault, texts in said.items()} | own,
        **({"backward": entry.backward} if entry.backward else {}),
    }
    messages = (*prompt_of(film, exercise, data), Message("assistant", (entry.answer,)))
    group = f"{SOURCE}-worker-{item.worker}" if item.worker else name
    return Example(name, messages, SOURCE, group, meta)


def prompt_of(film: Media, exercise: str, data: Data) -> tuple[Message, ...]:
    """The prompt of a film: one for training, evaluation and inference."""
    system = (Message("system", (data.system_prompt,)),) if data.system_prompt.strip() else ()
    return (*system, Message("user", (film, data.user_prompt.replace("{exercise}", exercise))))
