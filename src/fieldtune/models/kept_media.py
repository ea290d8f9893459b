"""What is kept of pictures and films while a model is trained or asked: made once, read by every process.

Of Mobile-VideoGPT's films what frozen towers see, or frames (`kept_films`); of other models what a frozen tower sees
(`kept_looks`), or pixels (`kept_pixels`).
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fieldtune.config import Accelerator, Precision
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


class KeptMedia(ABC):
    """Entries of one reader's pictures and films."""

    kept = "pixels"  # what an entry holds, for a manifest

    def __init__(self, cache: MediaCache, towers: Sequence[nn.Module] = ()) -> None:
        """towers: frozen ones, which look when an entry is made."""
        self._cache, self._towers = cache, towers

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
        """While the towers are on a device; None: they stay where they are."""
        if device is None:
            yield
            return
        for tower in self._towers:
            tower.to(device)
        try:
            yield
        finally:
            for tower in self._towers:
                tower.to("cpu")


def kept_dtype(precision: Precision) -> torch.dtype:
    """Of what frozen towers see, by the precision of the training."""
    return torch.float32 if precision is Precision.fp32 else torch.bfloat16


def weights_sum(weights: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of weights by name, by which what they saw is known again."""
    sums = hashlib.sha256()
    for name, tensor in weights:
        sums.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        sums.update(np.ascontiguousarray(flat.view(torch.uint8).numpy()).data)
    return sums.hexdigest()
