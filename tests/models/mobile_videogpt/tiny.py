"""A tiny Mobile-VideoGPT and a film for it."""

from __future__ import annotations

import torch
from torch import Tensor

from fieldtune.models.mobile_videogpt.network import MobileVideoGPT
from fieldtune.models.mobile_videogpt.shapes import TINY, Shape


def tiny_model(seed: int = 0, shape: Shape = TINY) -> MobileVideoGPT:
    torch.manual_seed(seed)
    return MobileVideoGPT(shape)


def film(seed: int = 0, shape: Shape = TINY) -> tuple[Tensor, Tensor]:
    """Context images and video frames."""
    generator = torch.Generator().manual_seed(seed)
    size = (2, shape.frames, 3, shape.image_size, shape.image_size)
    context, frames = torch.randn(size, generator=generator)
    return context, frames
