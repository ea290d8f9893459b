"""Rows whose pictures or films cannot be read any more: left out by name, before the work or in the middle of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock

from fieldtune.data.encode import Encoded
from fieldtune.data.load import Rows, media_of_rows
from fieldtune.data.media import BrokenMedia, Shown
from fieldtune.errors import UserError
from fieldtune.progress import Progress
from fieldtune.sources.pictures import MediaError

log = logging.getLogger("fieldtune")


class BrokenRows:
    """Rows of a training whose media break while it runs. They are left out from there on, as if they had not been.

    parts: rows by their name, those that are trained first. Threads may share one.
    """

    def __init__(self, **parts: Rows) -> None:
        self._parts = parts
        self._reasons: dict[str, str] = {}  # by SHA-256
        self._lock = Lock()

    def add(self, error: BrokenMedia) -> None:
        """Leave the rows of a file out, and name them; `UserError` if no row is left that could be trained."""
        reason = f"{error.shown.path} {error.reason}"
        with self._lock:
            if error.shown.content in self._reasons:
                return
            self._reasons[error.shown.content] = reason
        for part, rows in self._parts.items():
            for example, row in zip(rows.examples, rows.encoded, strict=True):
                if any(shown.content == error.shown.content for shown in row.media):
                    log.warning("%s row %s is left out from here on: %s", part, example.id, reason)
        trained = next(iter(self._parts.values()))
        if all(self.holds(row) for row in trained.encoded):
            raise UserError(f"no row can be read any more: {reason}")

    def holds(self, row: Encoded) -> bool:
        """Whether a row is left out."""
        return bool(self._reasons) and any(shown.content in self._reasons for shown in row.media)

    def readable(self, rows: Sequence[Encoded], attempt: Callable[[Sequence[Encoded]], object]) -> None:
        """Do something with rows, again without those of each file that breaks in it."""
        while True:
            try:
                attempt([row for row in rows if not self.holds(row)])
                return
            except BrokenMedia as error:
                self.add(error)

    @property
    def reasons(self) -> dict[str, str]:
        """Why, by the SHA-256 of each file."""
        return dict(self._reasons)

    def merge(self, found: Iterable[Mapping[str, str]]) -> None:
        """Take in what other processes found."""
        for reasons in found:
            self._reasons = {**reasons, **self._reasons}

    def left_out(self, part: str) -> list[tuple[str, str]]:
        """(id, reason) of each row of a part that is left out, those from before included."""
        rows, reasons = self._parts[part], self._reasons
        found = list(rows.left_out)
        for example, row in zip(rows.examples, rows.encoded, strict=True):
            of_row = [reasons[shown.content] for shown in row.media if shown.content in reasons]
            found += [(example.id, f"while it was trained, {reason}") for reason in of_row[:1]]
        return found


def without_broken(parts: Sequence[Rows], what: str = "") -> list[Rows]:
    """Rows without those whose media cannot be read, which are named. Each file is read once, as the model's reader
    does it. what: stands before the progress; empty: none is shown. `UserError` if no row is left of a part."""
    found = media_of_rows(parts)
    progress = Progress(what, len(found)) if what and found else None
    broken: dict[int, str] = {}
    for shown in found:
        broken |= broken_of([shown], shown.reader.check)
        if progress is not None:
            progress.advance()
    return left_without(parts, broken)


def broken_of(media: Iterable[Shown], read: Callable[[Shown], object]) -> dict[int, str]:
    """Of those that cannot be read what is wrong, by the number of their first place. One that failed is not read
    again."""
    broken: dict[int, str] = {}
    for shown in media:
        try:
            if shown.first not in broken:
                read(shown)
        except MediaError as error:
            broken[shown.first] = f"{error.path} {error.reason}"
    return broken


def left_without(parts: Sequence[Rows], broken: Mapping[int, str]) -> list[Rows]:
    """The parts without the rows of broken media; see `without_broken`."""
    return [_without(part, broken) for part in parts] if broken else list(parts)


def _without(rows: Rows, broken: Mapping[int, str]) -> Rows:
    left = Rows([], [], list(rows.left_out))
    for example, row in zip(rows.examples, rows.encoded, strict=True):
        reasons = [broken[shown.first] for shown in row.media if shown.first in broken]
        if reasons:
            log.warning("row %s is left out: %s", example.id, reasons[0])
            left.left_out.append((example.id, reasons[0]))
        else:
            left.examples.append(example)
            left.encoded.append(row)
    if rows.encoded and not left.encoded:
        identity, reason = left.left_out[-1]
        raise UserError(f"no row can be used: {identity}: {reason}")
    return left
