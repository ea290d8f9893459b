"""What is kept of pictures and films of transformers' families with a frozen vision tower: what it sees of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fieldtune.config import Config, Precision, Strategy, VisionPart
from fieldtune.data.cache_entry import Array, storable
from fieldtune.data.media import Shown
from fieldtune.data.media_cache import Key, MediaCache
from fieldtune.models.film_frames import Tensors
from fieldtune.models.kept_media import KeptMedia, kept_dtype, weights_sum
from fieldtune.models.looks import PICTURES, as_inputs, look
from fieldtune.models.vision_parts import parameters_in, towers_of
from fieldtune.models.vision_reader import Reader
from fieldtune.ranks import DEEPSPEED


def keeps_looks(config: Config) -> bool:
    """Not of a tower that is trained; nor where weights are shared out, since no rank could look alone."""
    shared = config.hardware.strategy in DEEPSPEED | {Strategy.fsdp2}
    return config.adapter.vision is VisionPart.frozen and config.trainer.media_cache_gb > 0 and not shared


def blank_looks(reader: Reader, precision: Precision) -> Callable[[Shown], Tensors]:
    """For `Reading.kept`, to plan with: zeros, as many as a training has of a picture or film."""
    return lambda shown: as_inputs(shown, torch.zeros(reader.look_shape(shown), dtype=kept_dtype(precision)))


class KeptLooks(KeptMedia):
    """Of pictures and films of `Reader`. precision: of the training; looks are kept in fp32 for fp32, else in bf16."""

    kept = "looks"

    def __init__(self, cache: MediaCache, reader: Reader, inner: Any, precision: Precision) -> None:
        super().__init__(cache, towers_of(inner))
        self._reader, self._inner = reader, inner
        self._dtype = kept_dtype(precision)
        weights = weights_sum(sorted(parameters_in(inner, "vision"), key=lambda one: one[0]))
        self._of_towers = {"kept": "looks", "weights": weights, "dtype": str(self._dtype)}

    def tensors(self, shown: Shown) -> Tensors:
        return as_inputs(shown, self._entry(shown).tensor(PICTURES))

    def _key(self, shown: Shown) -> Key:
        processor = {**self._reader.identity(shown.kind), **self._of_towers}
        return Key(shown.content, self._reader.sampling(shown), processor)

    def _size(self, media: Sequence[Shown]) -> tuple[tuple[int, ...], str]:
        numbers = [math.prod(self._reader.look_shape(shown)) for shown in media]
        return (math.ceil(sum(numbers) / len(media)),), str(self._dtype).removeprefix("torch.")

    def _made(self, shown: Shown) -> Mapping[str, Array]:
        return {PICTURES: storable(look(self._inner, self._reader.pixels(shown)).to(self._dtype))}
