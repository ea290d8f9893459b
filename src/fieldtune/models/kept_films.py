"""What is kept of films while a model is trained: made once, read in every epoch and by every process.

Of frozen towers what they see (`Look`), else the frames in the sizes that the towers take.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldtune.config import Accelerator, Config, Precision
from fieldtune.data.cache_entry import Array, storable
from fieldtune.data.load import Rows
from fieldtune.data.media import MediaReader, Shown
from fieldtune.data.media_cache import Key, MediaCache
from fieldtune.errors import UserError
from fieldtune.models.film_frames import Tensors
from fieldtune.models.films import FilmReader
from fieldtune.models.loss import unwrapped
from fieldtune.models.mobile_videogpt.preprocess import film_crops, film_pixels, normalized
from fieldtune.ranks import Rank
from fieldtune.sources.pictures import MediaError

log = logging.getLogger("fieldtune")

FOLDER = "media"  # in cache_dir


def kept_films(config: Config, model: Any, reader: MediaReader | None) -> KeptFilms | None:
    """What keeps the films of a model, which its reader then reads from; None for other models, or if nothing is to be
    kept (`trainer.media_cache_gb=0`)."""
    if not isinstance(reader, FilmReader) or config.trainer.media_cache_gb == 0:
        return None
    folder = Path(config.cache_dir).expanduser() / FOLDER
    cache = MediaCache(folder, int(config.trainer.media_cache_gb * 1e9))
    kept = KeptFilms(cache, reader, unwrapped(model), config.hardware.precision)
    reader.kept = kept.tensors
    return kept


class KeptFilms:
    """precision: of the training; what frozen towers see is kept in fp32 for fp32, else in bf16."""

    def __init__(self, cache: MediaCache, reader: FilmReader, model: Any, precision: Precision) -> None:
        self._cache, self._reader, self._model = cache, reader, model
        self._frozen = not any(one.requires_grad for tower in model.towers for one in tower.parameters())
        self._dtype = torch.float32 if precision is Precision.fp32 else torch.bfloat16
        self._processor: dict[str, Any] = {"model": "mobile_videogpt", "towers": reader.shape.towers()}
        if self._frozen:
            self._processor |= {"weights": _identity(model.towers), "dtype": str(self._dtype)}

    def tensors(self, shown: Shown) -> Tensors:
        """What the model takes of a film; `MediaError` if it cannot be read."""
        entry = self._cache.get(self._key(shown), lambda: self._made(shown))
        if self._frozen:
            return {name: entry.tensor(name) for name in ("images", "video")}
        context, frames = normalized(entry.arrays["context"], entry.arrays["frames"], self._reader.shape)
        return {"context": context, "frames": frames}

    def filled(self, parts: Sequence[Rows], rank: Rank, accelerator: Accelerator) -> list[Rows]:
        """Make what is not kept yet of the films of rows, after saying what it takes. Rows of a film that cannot be
        read are left out, and named; `UserError` if none is left of a part."""
        films = {shown.first: shown for part in parts for row in part.encoded for shown in row.media}
        present = sum(self._cache.has(self._key(shown)) for shown in films.values())
        if rank.writes:
            self._cache.announce(len(films), *self._size(), present)
        # Each process begins elsewhere: what one makes, the others read.
        ahead = list(films.values())
        ahead = ahead[rank.number :: rank.world_size] + ahead
        broken: dict[int, str] = {}
        with self._towers_on(torch.device("cuda", rank.local) if accelerator is Accelerator.gpu else None):
            for shown in ahead:
                try:
                    if shown.first not in broken:
                        self.tensors(shown)
                except MediaError as error:
                    broken[shown.first] = f"its film {error.path} {error.reason}"
        return [_without(part, broken) for part in parts] if broken else list(parts)

    def facts(self) -> dict[str, Any]:
        """For a manifest: what this process did, and the bytes of all entries."""
        return {
            **asdict(self._cache.counts),
            "bytes": self._cache.used(),
            "kept": "looks" if self._frozen else "frames",
        }

    def _key(self, shown: Shown) -> Key:
        return Key(shown.content, {"sample_16": self._reader.shape.frames}, self._processor)

    def _size(self) -> tuple[tuple[int, ...], str]:
        """Numbers of an entry, as one array, and their format."""
        shape = self._reader.shape
        if not self._frozen:
            return (2, shape.frames, shape.image_size, shape.image_size, 3), "uint8"
        images = shape.frames * shape.patches * shape.image_width
        video = shape.clip_frames * shape.video_pooled**2 * shape.video_width
        return (images + video,), str(self._dtype).removeprefix("torch.")

    def _made(self, shown: Shown) -> Mapping[str, Array]:
        frames = self._reader.frames(shown)
        if not self._frozen:
            return dict(zip(("context", "frames"), film_crops(frames, self._reader.shape), strict=True))
        device = next(self._model.towers[0].parameters()).device
        look = self._model.seen(*(part.to(device) for part in film_pixels(frames, self._reader.shape)))
        return {name: storable(getattr(look, name).to(self._dtype)) for name in ("images", "video")}

    @contextmanager
    def _towers_on(self, device: torch.device | None) -> Iterator[None]:
        """While the towers are on a device; None: they stay where they are."""
        if device is None or not self._frozen:
            yield
            return
        for tower in self._model.towers:
            tower.to(device)
        try:
            yield
        finally:
            for tower in self._model.towers:
                tower.to("cpu")


def _without(rows: Rows, broken: Mapping[int, str]) -> Rows:
    """The rows without those of broken films, which are named by the number of their first place."""
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


def _identity(towers: Sequence[Any]) -> str:
    """SHA-256 of weights, by which what they saw is known again."""
    sums = hashlib.sha256()
    for number, tower in enumerate(towers):
        state: dict[str, Tensor] = tower.state_dict()
        for name, tensor in sorted(state.items()):
            sums.update(f"{number} {name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            sums.update(np.ascontiguousarray(flat.view(torch.uint8).numpy()).data)
    return sums.hexdigest()
