"""From a film's frames to pixels as the two towers want them: sampling, resizing, normalizing. No decoding here."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fieldtune.models.mobile_videogpt.shapes import Shape

Frames = npt.NDArray[np.uint8]  # [frames, height, width, 3], RGB
Integers = npt.NDArray[np.int64]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What each byte of each color becomes [3, 256], by the released code's steps in its number formats: to look a picture's
# bytes up takes a fifteenth of the time.
_BYTES = np.arange(256, dtype=np.uint8)[:, None]
_SCALED = (_BYTES * np.float64(1 / 255)).astype(np.float32)
_CLIP = (_SCALED - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
_IMAGENET = (_BYTES / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
CLIP_NORMAL, IMAGENET_NORMAL = (np.ascontiguousarray(table.T, np.float32) for table in (_CLIP, _IMAGENET))

ONE = 1 << 11  # OpenCV's 1.0 in the fixed-point weights of its bilinear resize


def film_pixels(frames: Frames, shape: Shape) -> tuple[Tensor, Tensor]:
    """Context images and video frames of `MobileVideoGPT.look`: two of [shape.frames, 3, size, size], fp32.

    Of more frames than the model takes, every so many from the first one on; missing ones are zeros after normalizing,
    as in the released code. `ValueError` if there is no frame.
    """
    return normalized(*film_crops(frames, shape), shape)


def film_crops(frames: Frames, shape: Shape) -> tuple[Frames, Frames]:
    """The frames that the model takes in the sizes of its towers, CLIP's and VideoMamba's: two of [n, size, size, 3],
    with n of shape.frames at most. What a cache keeps where towers are trained."""
    if not len(frames):
        raise ValueError("a film without frames cannot be shown to a model")
    count = min(len(frames), shape.frames)
    taken = frames[:: len(frames) // count][:count]
    return clip_crops(taken, shape.image_size), resize_bilinear(taken, shape.image_size, shape.image_size)


def normalized(context: Frames, video: Frames, shape: Shape) -> tuple[Tensor, Tensor]:
    """Crops as the towers want them; frames that a short film has not are zeros."""
    pixels = (_normal(context, CLIP_NORMAL), _normal(video, IMAGENET_NORMAL))
    first, second = (torch.cat([part, part.new_zeros(shape.frames - len(part), *part.shape[1:])]) for part in pixels)
    return first, second


def clip_pixels(frames: Frames, size: int) -> Tensor:
    """CLIP's: bicubic to `size` at the shorter edge, the middle cut out, CLIP's mean and deviation. [n, 3, size, size].

    Bit for bit what transformers' `CLIPImageProcessorPil` gives.
    """
    return _normal(clip_crops(frames, size), CLIP_NORMAL)


def clip_crops(frames: Frames, size: int) -> Frames:
    """The pixels of `clip_pixels` before they are normalized: [n, size, size, 3]."""
    from PIL import Image

    height, width = frames.shape[1:3]
    long = int(size * max(height, width) / min(height, width))
    target = (size, long) if width <= height else (long, size)  # width, height
    left, top = ((edge - size) // 2 for edge in target)
    box = (left, top, left + size, top + size)
    cut = [Image.fromarray(frame).resize(target, Image.Resampling.BICUBIC).crop(box) for frame in frames]
    return np.stack([np.asarray(picture, dtype=np.uint8) for picture in cut])


def _normal(crops: Frames, table: npt.NDArray[np.float32]) -> Tensor:
    """Crops [n, height, width, 3] as numbers [n, 3, height, width]. table [3, 256]: by color and byte."""
    normal = np.empty((len(crops), 3, *crops.shape[1:3]), np.float32)
    for crop, into in zip(crops, normal, strict=True):
        for color in range(3):
            np.take(table[color], crop[..., color], out=into[color], mode="clip")  # any other mode copies once more
    return torch.from_numpy(normal)


def video_pixels(frames: Frames, size: int) -> Tensor:
    """VideoMamba's: stretched to size x size, ImageNet's mean and deviation. [n, 3, size, size]."""
    return _normal(resize_bilinear(frames, size, size), IMAGENET_NORMAL)


def resize_bilinear(frames: Frames, height: int, width: int) -> Frames:
    """What OpenCV's `resize` does with INTER_LINEAR: two neighbors in each direction, also where it makes smaller.

    Written after OpenCV's fixed-point arithmetic: weights of 11 bits, rows first, the sum of two columns rounded once.
    """
    left, right, x_weights = _neighbors(frames.shape[2], width)
    top, bottom, y_weights = _neighbors(frames.shape[1], height)
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for frame, into in zip(frames, resized, strict=True):  # one at a time: the sums take eight times the room
        wide = frame.astype(np.int64)
        rows = (wide[:, left] * (ONE - x_weights)[:, None] + wide[:, right] * x_weights[:, None]) >> 4
        weight = y_weights[:, None, None]
        into[:] = (((rows[top] * (ONE - weight)) >> 16) + ((rows[bottom] * weight) >> 16) + 2) >> 2
    return resized


@lru_cache(maxsize=64)
def _neighbors(old: int, new: int) -> tuple[Integers, Integers, Integers]:
    """Of each new place the two old ones beside it, and the weight of the second in parts of `ONE`."""
    centers = np.clip(((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32), 0, old - 1)
    first = np.floor(centers)
    weights = np.rint((centers - first) * ONE).astype(np.int64)
    return first.astype(np.int64), np.minimum(first + 1, old - 1).astype(np.int64), weights
