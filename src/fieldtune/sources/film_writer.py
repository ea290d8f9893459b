"""Films out of frames: H.264 in MP4, small or exact. PyAV, no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from fieldtune.errors import UserError
from fieldtune.sources.pictures import Pixels


@dataclass(frozen=True, slots=True)
class Coding:
    """How frames are stored: an encoder of FFmpeg, the form of its pixels, and its options."""

    encoder: str
    pixels: str
    options: tuple[tuple[str, str], ...]


SMALL = Coding("libx264", "yuv420p", (("crf", "21"), ("preset", "fast")))  # height and width even
EXACT = Coding("libx264rgb", "rgb24", (("qp", "0"), ("preset", "fast")))  # every pixel is read back as it was


def write_film(path: Path, frames: Iterable[Pixels], rate: int | Fraction, coding: Coding = SMALL) -> None:
    """Write a film; frames: uint8 [height, width, 3] each, RGB. rate: frames per second. `UserError` without PyAV.

    The same frames give the same bytes.
    """
    try:
        import av
    except ImportError:
        raise UserError("films are written by the package av; pip install 'fieldtune[video]'") from None
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # One thread and no time in the file: nothing in it is left to chance.
        stream = container.add_stream(coding.encoder, rate=rate, options={**dict(coding.options), "threads": "1"})
        stream.pix_fmt = coding.pixels
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
