"""What is kept of Mobile-VideoGPT's films while it is trained or asked: made once, read by every process.

Of frozen towers what they see (`Look`), else the frames in the sizes that the towers take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldtune.config import Precision
from fieldtune.data.cache_entry import Array, storable
from fieldtune.data.media import Shown
from fieldtune.data.media_cache import Key, MediaCache
from fieldtune.models.film_frames import Tensors
from fieldtune.models.films import FilmReader, Moments
from fieldtune.models.kept_media import KeptMedia, kept_dtype, weights_sum
from fieldtune.models.loss import unwrapped
from fieldtune.models.mobile_videogpt.preprocess import film_crops, film_pixels, normalized

FORM = 2  # of an entry: with the arrays that `_made` gives


class KeptFilms(KeptMedia):
    """precision: of the training; what frozen towers see is kept in fp32 for fp32, else in bf16. frozen: whether the
    towers are as they were before any training; null: whether they are not trained now."""

    def __init__(
        self, cache: MediaCache, reader: FilmReader, model: Any, precision: Precision, *, frozen: bool | None = None
    ) -> None:
        self._frozen: bool = model.towers_frozen if frozen is None else frozen
        super().__init__(cache, model.towers if self._frozen else ())
        self._reader, self._model = reader, model
        self.kept = "looks" if self._frozen else "frames"
        self._dtype = kept_dtype(precision)
        self._processor: dict[str, Any] = {"model": "mobile_videogpt", "towers": reader.shape.towers(), "form": FORM}
        if self._frozen:
            self._processor |= {"weights": weights_sum(_weights_of(model.towers)), "dtype": str(self._dtype)}

    def tensors(self, shown: Shown) -> Tensors:
        entry = self._entry(shown)
        if self._frozen:
            return {name: entry.tensor(name) for name in ("images", "video")}
        context, frames = normalized(entry.arrays["context"], entry.arrays["frames"], self._reader.shape)
        return {"context": context, "frames": frames}

    def chosen(self, shown: Shown) -> Moments:
        """The film's frames that the model's video tower is shown; `MediaError` if it cannot be read."""
        arrays = self._entry(shown).arrays
        chosen = arrays["chosen"] if self._frozen else chosen_by(self._model, self.tensors(shown))
        return Moments(arrays["numbers"].tolist(), arrays["seconds"].tolist()).at(chosen.flatten().tolist())

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
        sampled, frames = self._reader.sampled(shown)
        told: dict[str, Array] = {
            "numbers": np.array(sampled.frames, dtype=np.int32),
            "seconds": np.array(sampled.seconds, dtype=np.float32),
        }
        if not self._frozen:
            crops = film_crops(frames, self._reader.shape)
            return {**dict(zip(("context", "frames"), crops, strict=True)), **told}
        device = next(self._model.towers[0].parameters()).device
        look = self._model.seen(*(part.to(device) for part in film_pixels(frames, self._reader.shape)))
        kept = {name: storable(getattr(look, name).to(self._dtype)) for name in ("images", "video")}
        return {**kept, **told, "chosen": storable(look.chosen)}


def chosen_frames(model: Any, kept: KeptMedia | None, shown: Shown) -> Moments | None:
    """The film's frames that a model's video tower is shown; None of a model that chooses none. kept: `keep_media` of
    this model. `MediaError` if the film cannot be read."""
    if not isinstance(shown.reader, FilmReader):
        return None
    if isinstance(kept, KeptFilms):
        return kept.chosen(shown)
    sampled, frames = shown.reader.sampled(shown)
    context, video = film_pixels(frames, shown.reader.shape)
    return sampled.at(chosen_by(unwrapped(model), {"context": context, "frames": video}).flatten().tolist())


@torch.no_grad()
def chosen_by(inner: Any, film: Tensors) -> Tensor:
    """Places among the sampled frames that the network chooses in a film's pixels: [chunks, kept]."""
    device = next(inner.towers[0].parameters()).device
    chosen: Tensor = inner.look(*(film[name].to(device) for name in ("context", "frames"))).chosen
    return chosen


def _weights_of(towers: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    for number, tower in enumerate(towers):
        for name, tensor in sorted(tower.state_dict().items()):
            yield f"{number} {name}", tensor
