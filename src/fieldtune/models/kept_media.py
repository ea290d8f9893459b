"""What is kept of pictures and films while a model is trained or asked: made once, read by every process.

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
from fieldtune.data.broken_media import broken_of, left_without
from fieldtune.data.cache_entry import Array, Entry
from fieldtune.data.load import Rows, media_of_rows
from fieldtune.data.media import Shown
from fieldtune.data.media_cache import Key, MediaCache
from fieldtune.models.film_frames import Tensors
from fieldtune.ranks import Rank
from fieldtune.records import file_sha256
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
        media = media_of_rows(parts)
        present = sum(self._cache.has(self._key(shown)) for shown in media)
        if rank.writes and media:
            self._cache.announce(len(media), *self._size(media), present)
        # Each process begins elsewhere: what one makes, the others read.
        ahead = media[rank.number :: rank.world_size] + media
        with self._towers_on(torch.device("cuda", rank.local) if accelerator is Accelerator.gpu else None):
            broken = broken_of(ahead, self.tensors)
        log.info("media cache: %d of %d pictures and films were read", self._cache.counts.made, len(media))
        return left_without(parts, broken)

    def facts(self) -> dict[str, Any]:
        """For a manifest: what this process did, and the bytes of all entries."""
        return {**asdict(self._cache.counts), "bytes": self._cache.used(), "kept": self.kept}

    def _entry(self, shown: Shown) -> Entry:
        return self._cache.get(self._key(shown), lambda: self._unchanged(shown))

    def _unchanged(self, shown: Shown) -> Mapping[str, Array]:
        if shown.path.is_file() and file_sha256(shown.path) != shown.content:  # else the entry would be another file's
            raise MediaError(shown.path, "was changed after it was prepared")
        return self._made(shown)

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
