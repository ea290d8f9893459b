"""Pictures and films in rows: each takes some places among a row's tokens, and is known by its content.

A place is a negative id, -(1 + number). Numbers are given out once a process: the places of one picture follow each
other, and two rows hold the same ids only where they hold the same picture, seen in the same way. So whatever compares
ids - the trie, packing, caches of prompts - works on pictures as it does on text, and the ids say which pictures a pass
needs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fieldtune.errors import UserError
from fieldtune.records import Media, MediaKind
from fieldtune.sources.video import Film

Ids = npt.NDArray[np.integer[Any]]


class MediaBatch(TypedDict):
    """The pictures and films of one forward pass.

    inputs: what the model's `get_image_features` takes, and `get_video_features` where a family has films apart; then
    the features of films come after those of pictures. where [places]: flat positions in the pass's ids. rows
    [places]: the row of the features [all places of the pictures, width] that stands there.
    """

    inputs: dict[str, Tensor]
    where: Tensor
    rows: Tensor


class MediaReader(Protocol):
    """How a family of models takes pictures in."""

    placeholders: dict[MediaKind, str]  # what its chat template writes for a picture or film; other kinds it takes not
    place_ids: dict[MediaKind, int]  # the token that stands for one place in the expanded text
    in_text: bool  # its chat template knows texts only: the placeholder is a line of its own before the next text

    def shown(self, media: Media, together: int) -> Shown:
        """A picture or film of a row with `together` of them; `EncodeError` if it cannot be read."""
        ...

    def text(self, shown: Shown) -> str:
        """What the placeholder becomes: a placeholder for each place, and what the family writes around them."""
        ...

    def positions(self, ids: Ids) -> npt.NDArray[np.int64] | None:
        """Positions of a row's tokens [axes, length], where they are more than their numbers."""
        ...

    def inputs(self, shown: Sequence[Shown]) -> dict[str, Tensor]:
        """Pixels, ready for the model. Reads the files; `BrokenMedia` if one cannot be read."""
        ...

    def values(self, shown: Shown) -> int:
        """How many numbers the pixels of a picture or film are, for all towers."""
        ...

    def must_see(self, shown: Shown) -> dict[str, Tensor]:
        """The pixels of one, whatever is kept of it; `BrokenMedia` if it cannot be read."""
        ...

    def check(self, shown: Shown) -> None:
        """Read a file as `inputs` will; `MediaError` if it cannot be read."""
        ...

    def plain(self, ids: Tensor, shown: Sequence[Shown]) -> dict[str, Tensor]:
        """What the model itself, of transformers, takes for rows of ids [rows, length] with these pictures and films,
        in the order in which they stand there."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that the reader is made of."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture or film as a model sees it. size: pixels (height, width). content: SHA-256 of its file. first: the
    number of its first place. film, frames: of a film whose places depend on them, and the numbers of those shown."""

    path: Path
    content: str
    size: tuple[int, int]
    places: int
    first: int
    reader: MediaReader
    kind: MediaKind = "image"
    film: Film | None = None
    frames: tuple[int, ...] = ()

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """The ids of its places [places]."""
        return -1 - np.arange(self.first, self.first + self.places)


class BrokenMedia(UserError):
    """A picture or film that could be read before cannot be read now. shown: which; reason: why, without its name."""

    def __init__(self, shown: Shown, reason: str) -> None:
        super().__init__(f"{shown.path} {reason}; mend it, or take its rows out")
        self.shown, self.reason = shown, reason


class Contents:
    """Every picture that rows of this process hold, by the numbers of its places."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Shown] = {}
        self._all: list[Shown] = []
        self._firsts = np.zeros(0, dtype=np.int64)
        self._lock = Lock()

    def add(self, key: Hashable, make: Callable[[int], Shown]) -> Shown:
        """The picture of a key; made with the next free number if the key is new."""
        with self._lock:
            if key not in self._known:
                last = self._all[-1] if self._all else None
                made = make(last.first + last.places if last else 0)
                self._known[key] = made
                self._all.append(made)
            return self._known[key]

    def owners(self, places: Ids) -> tuple[list[Shown], npt.NDArray[np.int64]]:
        """The distinct pictures and then films that some places belong to, and for each place its row in their features
        together."""
        numbers = -1 - places.astype(np.int64)
        with self._lock:
            if len(self._firsts) < len(self._all):
                self._firsts = np.array([one.first for one in self._all])
            firsts = self._firsts
        which, inverse = np.unique(np.searchsorted(firsts, numbers, side="right") - 1, return_inverse=True)
        found = [self._all[number] for number in which]
        order = sorted(range(len(found)), key=lambda number: found[number].kind == "video")
        shown = [found[number] for number in order]
        starts = np.empty(len(found), dtype=np.int64)
        starts[order] = np.cumsum([0, *(one.places for one in shown)])[:-1]
        return shown, starts[inverse] + numbers - firsts[which][inverse]

    def in_order(self, ids: Ids) -> list[tuple[int, Shown]]:
        """The pictures of a row's ids as often as they stand there, each with where it begins."""
        where = np.flatnonzero(ids < 0)
        if not len(where):
            return []
        shown, _ = self.owners(ids[where])
        by_first = {-1 - one.first: one for one in shown}
        return [
            (int(at), by_first[place])
            for at, place in zip(where, ids[where].tolist(), strict=True)
            if place in by_first
        ]


CONTENTS = Contents()


def media_of(ids: Tensor) -> MediaBatch | None:
    """The pictures whose places stand in the ids of a pass, read and made ready; None if there are none."""
    flat = ids.flatten().numpy()
    where = np.flatnonzero(flat < 0)
    if not len(where):
        return None
    shown, rows = CONTENTS.owners(flat[where])
    return {
        "inputs": shown[0].reader.inputs(shown),
        "where": torch.from_numpy(where),
        "rows": torch.from_numpy(rows),
    }


def idle_media(those: Iterable[Shown]) -> MediaBatch | None:
    """Of some pictures one that is looked at and stands nowhere: that with the fewest places; None if there is none.

    Where weights are shared out, all ranks must go through the same layers in each pass. A rank whose rows have no
    picture looks at this one, and its tower and projector get a gradient of zeros.
    """
    shown = min(those, key=lambda one: one.places, default=None)
    if shown is None:
        return None
    nowhere = torch.zeros(0, dtype=torch.int64)
    return {"inputs": shown.reader.inputs([shown]), "where": nowhere, "rows": nowhere}


def plain_inputs(ids: Tensor) -> dict[str, Tensor]:
    """What the model itself, of transformers, takes for rows of ids [rows, length]: ids with its own token at each
    place, and the pixels of every picture in order."""
    shown = [one for _, one in CONTENTS.in_order(ids.flatten().numpy())]
    if not shown:
        return {"input_ids": ids}
    return shown[0].reader.plain(ids, shown)
