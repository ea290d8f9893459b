"""The pictures and films of rows: looked at before anything is trained, so that a broken one costs its rows and no run.

A row whose media are missing, changed, broken or too slow to read becomes a `Rejected`; the others get each file's
absolute path and the SHA-256 of its bytes. What was read well is remembered by path, size and time of change in an
index (JSON Lines), so an unchanged film is neither hashed nor decoded again.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from fieldtune.records import Example, Media, MediaKind, Rejected, dump_line
from fieldtune.sources.decoder import Decoder, Failure
from fieldtune.sources.pictures import MediaError

TIMEOUT = 60.0  # seconds for reading a file, beyond a film's own length
WORKERS = 8  # decoding processes at most; as many as there are cores if these are fewer
TOGETHER = 256  # rows that are looked at together
EXCERPT = 500  # characters of a rejected row that are kept

Item = Example | Rejected
Named = tuple[Path, MediaKind]  # an absolute path, and what is said to be there


@dataclass(slots=True)
class MediaCounts:
    """files: different ones that rows name. read: to their end, this time. remembered: unchanged since they were read.
    broken: of no use. rows: left out for it."""

    files: int = 0
    read: int = 0
    remembered: int = 0
    broken: int = 0
    rows: int = 0


class MediaFiles:
    """Looks at the media of rows. A context manager: it ends its decoding processes, which start at the first file.

    index: the file of what is known; made if it is not there. timeout_seconds, workers: see `Decoder`.
    """

    def __init__(self, index: Path, timeout_seconds: float = TIMEOUT, workers: int | None = None) -> None:
        self.counts = MediaCounts()
        self._index = index
        self._known: dict[Named, tuple[int, int, str]] | None = None  # read when it is needed
        self._found: dict[Named, str | Failure] = {}  # SHA-256 of the bytes, or what is wrong
        self._seconds = timeout_seconds
        self._workers = workers or min(WORKERS, os.cpu_count() or 1)
        self._decoder: Decoder | None = None

    def __enter__(self) -> MediaFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._decoder is not None:
            self._decoder.close()

    def screened(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items in their order, rows with media as the module says. A relative path is the working folder's.

        Raises `UserError` where a package that reads media is missing.
        """
        waiting: list[Item] = []
        for item in items:
            if waiting or _has_media(item):
                waiting.append(item)
            else:
                yield item
            if len(waiting) >= TOGETHER:
                yield from self._looked_at(waiting)
                waiting = []
        yield from self._looked_at(waiting)

    def _looked_at(self, items: list[Item]) -> Iterator[Item]:
        wanted = {_named(media): None for item in items if isinstance(item, Example) for media in item.media}
        self._look([named for named in wanted if named not in self._found])
        for item in items:
            yield self._judged(item) if isinstance(item, Example) and item.media else item

    def _look(self, files: list[Named]) -> None:
        """Find out about files: what is known of them, and by reading the others."""
        if files and self._known is None:
            self._known = _read_index(self._index)
        unknown: dict[Named, os.stat_result] = {}
        for named in files:
            self.counts.files += 1
            facts = _facts_of(named[0])
            known = (self._known or {}).get(named)
            if isinstance(facts, Failure):
                self._set(named, facts)
            elif known is not None and known[:2] == (facts.st_size, facts.st_mtime_ns):
                self.counts.remembered += 1
                self._found[named] = known[2]
            else:
                unknown[named] = facts
        if unknown:
            self._read_all(unknown)

    def _read_all(self, files: dict[Named, os.stat_result]) -> None:
        """Read files to their end, and add those that can be read to the index."""
        self._decoder = self._decoder or Decoder(self._seconds, self._workers)
        self._index.parent.mkdir(parents=True, exist_ok=True)
        with self._index.open("a", encoding="utf-8") as file:
            outcomes = self._decoder.over(self._read, files)
            for (named, facts), outcome in zip(files.items(), outcomes, strict=True):
                self._set(named, outcome)
                if isinstance(outcome, str):
                    line = [str(named[0]), named[1], facts.st_size, facts.st_mtime_ns, outcome]
                    # The line break stands before: a line that a killed process left half-written spoils no other.
                    file.write("\n" + json.dumps(line))
                    file.flush()

    def _read(self, named: Named) -> str:
        path, kind = named
        assert self._decoder is not None
        found = self._decoder.sha256(path)
        self._decoder.check(path, kind)
        return found

    def _set(self, named: Named, outcome: str | Failure) -> None:
        self._found[named] = outcome
        if isinstance(outcome, Failure):
            self.counts.broken += 1
        else:
            self.counts.read += 1

    def _judged(self, example: Example) -> Item:
        try:
            messages = tuple(
                replace(
                    message,
                    parts=tuple(self._sealed(part) if isinstance(part, Media) else part for part in message.parts),
                )
                if message.media
                else message
                for message in example.messages
            )
        except MediaError as error:
            self.counts.rows += 1
            text = dump_line(example.to_json())[:EXCERPT]
            return Rejected(str(error.path), 0, f"{error.reason} (row {example.id})", text)
        return replace(example, messages=messages)

    def _sealed(self, media: Media) -> Media:
        """A part with the absolute path and the sum of its file; `MediaError` if that cannot be used."""
        path = _named(media)[0]
        found = self._found[_named(media)]
        if isinstance(found, Failure):
            raise MediaError(found.path, found.reason)
        if media.sha256 not in ("", found):
            raise MediaError(path, f"is not the file that the row names: its SHA-256 is {found}, not {media.sha256}")
        return replace(media, path=str(path), sha256=found)


def _has_media(item: Item) -> bool:
    return isinstance(item, Example) and bool(item.media)


def _named(media: Media) -> Named:
    return Path(media.path).absolute(), media.kind


def _facts_of(path: Path) -> os.stat_result | Failure:
    """Size and time of change of a file, or why it is none."""
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        return Failure(path, getattr(error, "strerror", None) or str(error))
    return facts if stat.S_ISREG(facts.st_mode) else Failure(path, "is not a regular file")


def _read_index(path: Path) -> dict[Named, tuple[int, int, str]]:
    """Bytes, time of change in nanoseconds and SHA-256 of each file; later lines count. Broken lines are skipped."""
    known: dict[Named, tuple[int, int, str]] = {}
    if not path.exists():
        return known
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                name, kind, size, changed, digest = json.loads(line)
                known[Path(name), kind] = (int(size), int(changed), str(digest))
            except (ValueError, TypeError):
                continue
    return known
