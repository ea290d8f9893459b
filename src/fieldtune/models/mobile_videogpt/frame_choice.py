"""Which frames of a chunk are kept: those to which the chunk's patches attend most. Nothing here is learned."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_scores(features: Tensor) -> Tensor:
    """Attention that each frame receives: [chunks, frames, patches, width] -> [chunks, frames], fp32 at least.

    softmax(X X^T / sqrt(width)) over all patches X of a chunk, summed over those who attend and over a frame's patches.
    A chunk's scores sum to frames * patches.
    """
    chunks, frames, patches, width = features.shape
    x = features.to(torch.promote_types(features.dtype, torch.float32)).reshape(chunks, frames * patches, width)
    attention = torch.softmax(x @ x.transpose(1, 2) * width**-0.5, -1)
    return attention.sum(1).view(chunks, frames, patches).sum(2)


@torch.no_grad()
def choose_frames(features: Tensor, kept: int, *, most_attended: bool = True) -> Tensor:
    """Numbers, within their chunk and in the order of time, of the frames to keep: [chunks, kept], int64.

    Of frames with the same score the earlier one is kept.
    """
    order = torch.sort(frame_scores(features), dim=1, descending=most_attended, stable=True).indices
    return order[:, :kept].sort(1).values
