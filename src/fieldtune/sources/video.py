"""Films as arrays: what a film is, its frames by number, and which of them a model looks at. PyAV, no torch.

A frame's number is its place in the order of showing, from 0, whatever the time between frames. Frames are decoded one
after the other from the start, so a number means the same frame in every container, and only those asked for are
converted and kept. All functions raise `MediaError`, in one line, for a file that is missing, no film, without a video
stream or a frame, cut off or damaged, and `UserError` without PyAV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldtune.errors import UserError
from fieldtune.sources.pictures import MediaError, Pixels, read_image, reading

__all__ = ["Film", "MediaError", "Sampler", "check", "decode", "fps", "probe", "read_image", "sample_16", "uniform"]

FASTEST = 1000.0  # frames per second; a container that says more has no rate
DEFAULT_RATE = 25.0  # frames per second of a film of one frame without times
SHORT = 0.9  # of the length that the container gives: a film that ends before it is cut off


@dataclass(frozen=True, slots=True)
class Film:
    """frames: how many there are. fps: frames per second, the mean of a variable rate. width, height: as shown."""

    frames: int
    fps: float
    seconds: float
    width: int
    height: int


Sampler = Callable[[Film], list[int]]


def probe(path: Path) -> Film:
    """What a film is. Its packets are read, but only its first frame is decoded."""
    first: Any = None
    count, times = 0, list[int]()  # beginning and end of what is shown, in the stream's units
    with _opened(path) as (container, stream):
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise MediaError(path, f"is cut off or damaged after {count} frames")
            if first is None:
                first = next(iter(packet.decode()), None)
            if packet.size == 0 or packet.is_discard:  # the last packet, which is empty; frames that are not shown
                continue
            count += 1
            if packet.pts is not None:
                shown = (packet.pts, packet.pts + (packet.duration or 0))
                times = [min(*times[:1], *shown), max(*times[1:], *shown)]
        if first is None or count == 0:
            raise MediaError(path, "has no frame")
        seconds = (times[1] - times[0]) * float(stream.time_base) if times else 0.0
        rate = float(stream.average_rate or 0)
        if not 0 < rate <= FASTEST:
            rate = count / seconds if seconds > 0 else DEFAULT_RATE
        if _is_cut_off(container, stream, count, seconds):
            raise MediaError(path, f"is cut off: {count} frames, {seconds:.1f} s of the length that its header gives")
        height, width = (first.width, first.height) if _turns(first) % 2 else (first.height, first.width)
    return Film(count, rate, seconds or count / rate, width, height)


def decode(path: Path, indices: Sequence[int]) -> Pixels:
    """Frames by number as RGB, uint8 [len(indices), height, width, 3], in the order asked for, turned as shown.

    A number may be asked for twice. Raises `MediaError` for a number that the film has not, too.
    """
    if not indices or min(indices) < 0:
        raise ValueError(f"give numbers of frames, 0 or more; got {list(indices)}")
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(index, []).append(place)
    last, count = max(indices), 0
    frames: Pixels | None = None
    with _opened(path) as (container, stream):
        for number, frame in enumerate(_sound(path, container, stream)):
            count = number + 1
            if number in places:
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame))
                if frames is None:
                    frames = np.empty((len(indices), *pixels.shape), dtype=np.uint8)
                if pixels.shape != frames.shape[1:]:
                    raise MediaError(path, f"changes its size at frame {number}")
                frames[places[number]] = pixels
            if number == last and frames is not None:
                return frames
    raise MediaError(path, f"has {count} frames that can be decoded; frame {last} was asked for")


def check(path: Path) -> Film:
    """`probe`, and every frame is decoded: what passes can be read to its end."""
    film = probe(path)
    with _opened(path) as (container, stream):
        count = sum(1 for _ in _sound(path, container, stream))
    if count < film.frames:
        raise MediaError(path, f"is damaged: {count} of its {film.frames} frames can be decoded")
    return film


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream."""
    try:
        import av
    except ImportError:
        raise UserError(f"{path}: films need the package av; pip install 'fieldtune[video]'") from None
    with reading(path, "is not a film that can be read"):
        if path.is_dir():
            raise MediaError(path, "is a folder")
        # A playlist that is named like a film must not make the decoder fetch addresses.
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise MediaError(path, "has no video stream")
            if stream.codec_context is None:
                raise MediaError(path, "is in a format that PyAV cannot decode")
            stream.codec_context.thread_count = 1  # several films at a time are the parallel work
            yield container, stream


def _sound(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    """All frames in the order of showing; `MediaError` at one that the decoder marks as damaged."""
    for number, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt:
            raise MediaError(path, f"is damaged at frame {number}")
        yield frame


def _turns(frame: Any) -> int:
    """Quarter turns, counterclockwise, that show a frame upright: phones store how they were held."""
    quarters: int = round(frame.rotation / 90) % 4
    return quarters


def _is_cut_off(container: Any, stream: Any, count: int, seconds: float) -> bool:
    """Whether the container promises more than it holds.

    Fewer frames alone say nothing: an edit list leaves some out. Of other containers than these two kinds the length is
    a guess, or that of the sound.
    """
    length = 0.0  # seconds
    if stream.frames > count and stream.duration:
        length = stream.duration * float(stream.time_base)
    elif "matroska" in container.format.name and len(container.streams) == 1 and container.duration:
        length = container.duration / 1_000_000
    return seconds < SHORT * length


def sample_16(film: Film, count: int = 16) -> list[int]:
    """Numbers of at most 16 (or `count`) frames, as Mobile-VideoGPT samples: one a second, thinned at even distance.

    A film with fewer than 16 of these gives 16 frames at the largest stride that fits, or all where it has no 16.
    """
    a_second = range(0, film.frames, max(1, round(film.fps)))
    if len(a_second) >= count:
        return [a_second[int(place)] for place in np.linspace(0, len(a_second) - 1, count, dtype=int)]
    wanted = min(count, film.frames)
    stride = max(1, (film.frames - 1) // max(1, wanted - 1))
    return list(range(0, stride * wanted, stride))


def uniform(count: int) -> Sampler:
    """A sampler of `count` frames at even distance, first and last among them; of all in a film that has fewer."""
    if count < 1:
        raise ValueError(f"at least one frame must be sampled, got {count}")
    return lambda film: _spread(range(film.frames), count)


def fps(rate: float, at_most: int) -> Sampler:
    """A sampler of `rate` frames a second from the first on, thinned at even distance where they are too many."""
    if rate <= 0 or at_most < 1:
        raise ValueError(f"the rate must be above 0 and at least one frame sampled, got {rate} and {at_most}")

    def sample(film: Film) -> list[int]:
        step = max(1.0, film.fps / rate)
        return _spread([int(place * step) for place in range(int((film.frames - 1) / step) + 1)], at_most)

    return sample


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of the numbers at even distance."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[int(place)] for place in np.linspace(0, len(numbers) - 1, count, dtype=int)]
