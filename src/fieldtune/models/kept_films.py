"""What is kept of Mobile-VideoGPT's films while it is trained: made once, read in every epoch and by every process.

Of frozen towers what they see (`Look`), else the frames in the sizes that the towers take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldtune.config import Config, Precision
from fieldtune.data.cache_entry import Array, storable
from fieldtune.data.media import MediaReader, Shown
from fieldtune.data.media_cache import Key, MediaCache
from fieldtune.models.film_frames import Tensors
from fieldtune.models.films import FilmReader
from fieldtune.models.kept_media import FOLDER, KeptMedia
from fieldtune.models.kept_pixels import KeptPixels
from fieldtune.models.loss import unwrapped
from fieldtune.models.mobile_videogpt.preprocess import film_crops, film_pixels, normalized
from fieldtune.models.vision_reader import Reader


def kept_films(config: Config, model: Any, reader: MediaReader | None) -> KeptMedia | None:
    """What keeps the films and pictures of a model, which its reader then reads from; None for a model that does not
    see, or if nothing is to be kept (`trainer.media_cache_gb=0`)."""
    if not isinstance(reader, FilmReader | Reader) or config.trainer.media_cache_gb == 0:
        return None
    cache = MediaCache(Path(config.cache_dir).expanduser() / FOLDER, int(config.trainer.media_cache_gb * 1e9))
    kept: KeptMedia = (
        KeptPixels(cache, reader)
        if isinstance(reader, Reader)
        else KeptFilms(cache, reader, unwrapped(model), config.hardware.precision)
    )
    reader.kept = kept.tensors
    return kept


class KeptFilms(KeptMedia):
    """precision: of the training; what frozen towers see is kept in fp32 for fp32, else in bf16."""

    def __init__(self, cache: MediaCache, reader: FilmReader, model: Any, precision: Precision) -> None:
        super().__init__(cache)
        self._reader, self._model = reader, model
        self._frozen = not any(one.requires_grad for tower in model.towers for one in tower.parameters())
        self.kept = "looks" if self._frozen else "frames"
        self._dtype = torch.float32 if precision is Precision.fp32 else torch.bfloat16
        self._processor: dict[str, Any] = {"model": "mobile_videogpt", "towers": reader.shape.towers()}
        if self._frozen:
            self._processor |= {"weights": _identity(model.towers), "dtype": str(self._dtype)}

    def tensors(self, shown: Shown) -> Tensors:
        entry = self._entry(shown)
        if self._frozen:
            return {name: entry.tensor(name) for name in ("images", "video")}
        context, frames = normalized(entry.arrays["context"], entry.arrays["frames"], self._reader.shape)
        return {"context": context, "frames": frames}

    def _key(self, shown: Shown) -> Key:
        return Key(shown.content, {"sample_16": self._reader.shape.frames}, self._processor)

    def _size(self, media: Sequence[Shown]) -> tuple[tuple[int, ...], str]:
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
