"""Small films and pictures that say which frame is which: a frame's number stands in it as bars, white for a bit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
BITS = 8
HELD: list[int] = []  # ends of FIFOs; closing one would be the end of the file for its reader
B_FRAMES = {"preset": "veryfast", "bf": "3", "g": "12"}  # frames are not stored in the order of showing


def bars(number: int, height: int = 48, width: int = 64) -> Pixels:
    """A picture of a number from 0 to 255; its last quarter is gray, so that a turned one can be told."""
    picture = np.full((height, width, 3), 128, dtype=np.uint8)
    edges = np.linspace(0, width, BITS + 1, dtype=int)
    for bit in range(BITS):
        picture[: height * 3 // 4, edges[bit] : edges[bit + 1]] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture: Pixels) -> int:
    """The number that a picture says."""
    height, width, _ = picture.shape
    edges = np.linspace(0, width, BITS + 1, dtype=int)
    means = [picture[: height // 2, edges[bit] : edges[bit + 1]].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 127)


def write_film(
    path: Path,
    numbers: Iterable[int] = range(30),
    *,
    rate: int = 10,
    height: int = 48,
    width: int = 64,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: Mapping[str, str] = B_FRAMES,
    container: Mapping[str, str] | None = None,
    times: Sequence[int] | None = None,
) -> Path:
    """A film of such pictures. times: of each frame in milliseconds, for a variable rate."""
    with av.open(str(path), "w", options=dict(container or {})) as output:
        stream = output.add_stream(codec, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(bars(number, height, width), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[place], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def turn_film(path: Path) -> Path:
    """Say in an mp4's header that it is shown a quarter turn clockwise, as phones do that were held upright."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2: nine numbers of 16.16 or 2.30 bits
    for place, value in enumerate((0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)):
        data[matrix + 4 * place : matrix + 4 * place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


def cut(path: Path, share: float) -> Path:
    """Leave only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def wait_for_reader(fifo: Path, seconds: float = 60) -> None:
    """Until another process has opened a FIFO to read from it, and hangs there; it is let hang on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads
            time.sleep(0.01)
            continue
        HELD.append(descriptor)
        return
    raise TimeoutError(f"nobody reads {fifo}")
