"""What a plan must know of Mobile-VideoGPT: its network without weights, and films without decoding them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fieldtune.config import Config, Precision, VisionPart
from fieldtune.data.media import Shown
from fieldtune.models.film_frames import Tensors
from fieldtune.models.mobile_videogpt.checkpoint import shape_of
from fieldtune.models.mobile_videogpt.network import MobileVideoGPT
from fieldtune.models.mobile_videogpt.settings import MODEL_TYPE as MODEL_TYPE
from fieldtune.models.mobile_videogpt.shapes import Shape


def film_network(settings: Any) -> MobileVideoGPT:
    """The network of a language model's settings that also tell the towers (`network.language_settings`)."""
    return MobileVideoGPT(shape_of(settings.to_dict()))


def film_patch(settings: Any) -> int:
    """Numbers of a patch, as it enters both towers: each has pixels of its own."""
    return 2 * 3 * shape_of(settings.to_dict()).patch ** 2


def blank_films(config: Config, shape: Shape) -> Callable[[Shown], Tensors]:
    """For `FilmReader.kept`: in place of a film zeros, as many as a training has of it (`models.kept_films`)."""
    if config.adapter.vision is not VisionPart.frozen or config.trainer.media_cache_gb == 0:
        side = shape.image_size
        return lambda _: {name: torch.zeros(shape.frames, 3, side, side) for name in ("context", "frames")}
    kind = torch.float32 if config.hardware.precision is Precision.fp32 else torch.bfloat16
    sizes = {
        "images": (shape.frames, shape.patches, shape.image_width),
        "video": (shape.chunks, shape.kept * shape.video_pooled**2, shape.video_width),
    }
    return lambda _: {name: torch.zeros(size, dtype=kind) for name, size in sizes.items()}
