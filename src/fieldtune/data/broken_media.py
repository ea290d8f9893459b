"""Rows whose pictures or films cannot be read any more: found before the work, and left out by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from fieldtune.data.load import Rows
from fieldtune.data.media import Shown
from fieldtune.errors import UserError
from fieldtune.progress import Progress
from fieldtune.sources.pictures import MediaError

log = logging.getLogger("fieldtune")


def without_broken(parts: Sequence[Rows], what: str = "") -> list[Rows]:
    """Rows without those whose media cannot be read, which are named. Each file is read once, as the model's reader
    does it. what: stands before the progress; empty: none is shown. `UserError` if no row is left of a part."""
    found = {shown.first: shown for part in parts for row in part.encoded for shown in row.media}
    progress = Progress(what, len(found)) if what and found else None
    broken: dict[int, str] = {}
    for shown in found.values():
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
