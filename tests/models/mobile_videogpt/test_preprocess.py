"""Frames of a film, their size and their pixels: cases by hand, and equality with the library's processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import CLIPImageProcessorPil

from fieldtune.models.mobile_videogpt.preprocess import (
    clip_pixels,
    film_pixels,
    resize_bilinear,
    video_pixels,
)
from fieldtune.models.mobile_videogpt.shapes import TINY


def frames(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_a_film_without_frames() -> None:
    with pytest.raises(ValueError, match="without frames"):
        film_pixels(frames(0, 8, 8), TINY)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (321, 200), (224, 224), (100, 37), (480, 481)])
def test_context_images_are_those_of_the_library(height: int, width: int) -> None:
    film = frames(2, height, width)
    theirs = CLIPImageProcessorPil()(images=list(film), return_tensors="pt")["pixel_values"]
    ours = clip_pixels(film, 224)
    assert ours.dtype == torch.float32 and torch.equal(ours, theirs)


def test_video_frames_are_stretched_and_normalized() -> None:
    film = np.full((1, 10, 30, 3), (255, 0, 128), dtype=np.uint8)
    found = video_pixels(film, 48)
    assert found.shape == (1, 3, 48, 48) and found.dtype == torch.float32
    wanted = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225])
    torch.testing.assert_close(found, wanted[None, :, None, None].expand(1, 3, 48, 48))


def test_every_byte_of_a_video_frame_is_normalized_in_double_precision() -> None:
    film = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    wanted = ((film / 255.0 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])).astype(np.float32)
    assert torch.equal(video_pixels(film, 16), torch.from_numpy(wanted).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (37, 224), (100, 90), (1, 5)])
def test_resizing_is_bilinear_without_smoothing(height: int, width: int) -> None:
    """Within one step of 255 of torch's, whose weights are not rounded."""
    film = frames(2, height, width)
    plain = torch.from_numpy(film).permute(0, 3, 1, 2).double()
    theirs = functional.interpolate(plain, (224, 224), mode="bilinear", align_corners=False, antialias=False)
    ours = torch.from_numpy(resize_bilinear(film, 224, 224)).permute(0, 3, 1, 2)
    assert (ours.double() - theirs).abs().max() <= 1.0


def test_resizing_by_hand() -> None:
    film = np.array([[[0], [100], [200], [50]], [[10], [110], [210], [60]]], dtype=np.uint8)[None].repeat(3, 3)
    assert np.array_equal(resize_bilinear(film, 2, 4), film)
    assert resize_bilinear(film, 1, 2)[0, :, :, 0].tolist() == [[55, 130]]  # the means of 2 x 2 pixels
    # Twice as wide: a quarter and three quarters of the way between two pixels, and the edges as they are.
    assert resize_bilinear(film[:, :1], 1, 8)[0, 0, :, 0].tolist() == [0, 25, 75, 125, 175, 163, 88, 50]


def test_missing_frames_are_zeros_and_surplus_ones_are_skipped() -> None:
    film = frames(40, 20, 30)
    context, video = film_pixels(film, TINY)
    assert context.shape == video.shape == (16, 3, 48, 48)
    assert torch.equal(context, clip_pixels(film[:32:2], 48)) and torch.equal(video, video_pixels(film[:32:2], 48))
    context, video = film_pixels(film[:5], TINY)
    assert torch.equal(context[:5], clip_pixels(film[:5], 48)) and not context[5:].any()
    assert torch.equal(video[:5], video_pixels(film[:5], 48)) and not video[5:].any()
