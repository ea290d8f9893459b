"""What is kept of pictures and films while a model is trained: made once, read in every epoch and by every process.

Of Mobile-VideoGPT's films what frozen towers see, or frames (`kept_films`); of other models pixels (`kept_pixels`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from fieldtune.config import Accelerator
from fieldtune.data.cache_entry import Array, Entry
from fieldtune.data.load import Rows
from fieldtune.data.media import Shown
from fieldtune.data.media_cache import Key, MediaCache
from fieldtune.errors import UserError
from fieldtune.models.film_frames import Tensors
from fieldtune.ranks import Rank
from fieldtune.sources.pictures import MediaError

log = logging.getLogger("fieldtune")

FOLDER = "media"  # in cache_dir


class KeptMedia(ABC):
    """Entries of one reader's pictures and films."""

    kept = "pixels"  # what an entry holds, for a manifest

    def __init__(self, cache: MediaCache) -> None:
        self._cache = cache

    @abstractmethod
    def tensors(self, shown: Shown) -> Tensors:
        """What the model takes of a picture or film; `MediaError` if it cannot be read."""

    def filled(self, parts: Sequence[Rows], rank: Rank, accelerator: Accelerator) -> list[Rows]:
        """Make what is not kept yet of the media of rows, after saying what it takes. Rows with one that cannot be read
        are left out, and named; `UserError` if none is left of a part."""
        media = {shown.first: shown for part in parts for row in part.encoded for shown in row.media}
        present = sum(self._cache.has(self._key(shown)) for shown in media.values())
        if rank.writes and media:
            self._cache.announce(len(media), *self._size(list(media.values())), present)
        # Each process begins elsewhere: what one makes, the others read.
        ahead = list(media.values())
        ahead = ahead[rank.number :: rank.world_size] + ahead
        broken: dict[int, str] = {}
        with self._towers_on(torch.device("cuda", rank.local) if accelerator is Accelerator.gpu else None):
            for shown in ahead:
                try:
                    if shown.first not in broken:
                        self.tensors(shown)
                except MediaError as error:
                    what = "film" if shown.kind == "video" else "picture"
                    broken[shown.first] = f"its {what} {error.path} {error.reason}"
        return [_without(part, broken) for part in parts] if broken else list(parts)

    def facts(self) -> dict[str, Any]:
        """For a manifest: what this process did, and the bytes of all entries."""
        return {**asdict(self._cache.counts), "bytes": self._cache.used(), "kept": self.kept}

    def _entry(self, shown: Shown) -> Entry:
        return self._cache.get(self._key(shown), lambda: self._made(shown))

    @abstractmethod
    def _key(self, shown: Shown) -> Key: ...

    @abstractmethod
    def _size(self, media: Sequence[Shown]) -> tuple[tuple[int, ...], str]:
        """Numbers of an entry, as one array, and their format; the mean where they differ."""

    @abstractmethod
    def _made(self, shown: Shown) -> Mapping[str, Array]:
        """What an entry holds."""

    @contextmanager
    def _towers_on(self, device: torch.device | None) -> Iterator[None]:
        """While the towers are on a device, where they are looked with; None: they stay where they are."""
        yield


def _without(rows: Rows, broken: Mapping[int, str]) -> Rows:
    """The rows without those of broken media, which are named by the number of their first place."""
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
