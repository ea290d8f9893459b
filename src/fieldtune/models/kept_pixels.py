"""What is kept of pictures and films of models that see both: their pixels, as the model takes them, without a loss.

Pixels are numbers of 8 bits that were scaled: of each color there are 256 values at most. An entry has the values, and
of each pixel which one it is. Where there are more, as of pictures that were resized in floating point, it has the
pixels themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fieldtune.data.cache_entry import Array, storable
from fieldtune.data.media import Shown
from fieldtune.data.media_cache import Key, MediaCache
from fieldtune.models.film_frames import Tensors
from fieldtune.models.kept_media import KeptMedia
from fieldtune.models.vision_reader import Reader

LEVELS = 256
MOST = ".levels"  # ends the name of the values of an array


class KeptPixels(KeptMedia):
    """Of pictures and films of `Reader`."""

    def __init__(self, cache: MediaCache, reader: Reader) -> None:
        super().__init__(cache)
        self._reader = reader

    def tensors(self, shown: Shown) -> Tensors:
        entry = self._entry(shown)
        return unpacked({name: entry.tensor(name) for name in entry.arrays})

    def _key(self, shown: Shown) -> Key:
        return Key(shown.content, self._reader.sampling(shown), self._reader.identity(shown.kind))

    def _size(self, media: Sequence[Shown]) -> tuple[tuple[int, ...], str]:
        return (math.ceil(sum(self._reader.values(one) for one in media) / len(media)),), "uint8"

    def _made(self, shown: Shown) -> Mapping[str, Array]:
        return {name: storable(value) for name, value in packed(self._reader.pixels(shown)).items()}


def packed(tensors: Tensors) -> Tensors:
    """As an entry has them; see `unpacked`."""
    kept: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int64 and tensor.numel() > LEVELS:  # a mask
            kept[name] = tensor.bool() if bool((tensor == tensor.bool()).all()) else tensor
        elif tensor.dtype == torch.float32 and (found := _by_levels(tensor)) is not None:
            kept[name], kept[name + MOST] = found
        else:
            kept[name] = tensor
    return kept


def unpacked(kept: Tensors) -> Tensors:
    """The tensors that were packed, bit for bit."""
    tensors: Tensors = {}
    for name, tensor in kept.items():
        if name.endswith(MOST):
            continue
        if name + MOST in kept:
            levels, which = kept[name + MOST].numpy(), _by_color(tensor).numpy()
            there = [np.take(values, part) for values, part in zip(levels, which, strict=True)]
            tensors[name] = _shaped(torch.from_numpy(np.stack(there)), tensor.shape)
        else:
            tensors[name] = tensor.long() if tensor.dtype == torch.bool else tensor
    return tensors


def _by_levels(pixels: Tensor) -> tuple[Tensor, Tensor] | None:
    """Which value each pixel is, uint8 in the shape of the pixels, and the values of each color [3, 256]."""
    levels, which = np.zeros((3, LEVELS), np.float32), []
    for color, part in enumerate(_by_color(pixels).numpy()):
        values, inverse = np.unique(part, return_inverse=True)
        if len(values) > LEVELS:
            return None
        levels[color, : len(values)] = values
        which.append(inverse.reshape(part.shape).astype(np.uint8))
    return _shaped(torch.from_numpy(np.stack(which)), pixels.shape), torch.from_numpy(levels)


def _by_color(pixels: Tensor) -> Tensor:
    """[3, ...]. The color is the third axis from the end, or in rows of patches the outermost part of a row."""
    apart = pixels.reshape(len(pixels), 3, -1).movedim(1, 0) if pixels.ndim == 2 else pixels.movedim(-3, 0)
    return apart.contiguous()


def _shaped(by_color: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_by_color`."""
    if len(shape) == 2:
        return by_color.movedim(0, 1).flatten(1).contiguous()
    return by_color.movedim(0, -3).contiguous()
