"""Films for models that also see pictures: which frames each family takes, and their pixels as its own processor makes
them. No torchvision: its resizing of frames is torch's own `interpolate`, which is called here.
"""

from __future__ import annotations

import atexit
import json
import math
import os
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fieldtune.data.media import Shown
from fieldtune.sources.decoder import Decoder
from fieldtune.sources.pictures import Pixels
from fieldtune.sources.video import Film

SETTINGS = "video_preprocessor_config.json"  # transformers' name
TIMEOUT = 60.0  # seconds that reading a film may take, beside its own length
RESAMPLES = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers

Size = tuple[int, int]  # pixels: height, width
Tensors = dict[str, Tensor]


def film_decoder() -> Decoder:
    """Reads films in a process of its own, which starts with the first film: one for all models of this process.

    A forked process gets another: two that ask the same one would get each other's frames.
    """
    return _decoder_of(os.getpid())


@cache
def _decoder_of(_process: int) -> Decoder:
    decoder = Decoder(TIMEOUT)
    atexit.register(decoder.close)
    return decoder


class Films(ABC):
    """How a family takes films. Its numbers are those of the folder's video processor, else the image processor's.

    most: frames of a film that are shown; null: as many as the family takes.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    kind: ClassVar[str]  # of the video processor, by transformers' name

    def __init__(self, settings: Any, processor: Any, folder: Path, most: int | None) -> None:
        shared = ("size", "image_mean", "image_std", "resample", "rescale_factor")
        self.settings, self.most = settings, most
        self.numbers: dict[str, Any] = {
            **{name: getattr(processor, name) for name in shared},
            **self.defaults,
            **_written(folder),
            "video_processor_type": self.kind,
        }

    @abstractmethod
    def chosen(self, film: Film) -> list[int]:
        """Numbers of the frames that are shown."""

    @abstractmethod
    def places(self, size: Size, frames: int) -> int:
        """Places of so many frames of a size; `ValueError` if they cannot be taken."""

    @abstractmethod
    def pixels(self, frames: Pixels) -> Tensors:
        """What the model takes of one film."""

    def facts(self) -> dict[str, Any]:
        """Everything that the pixels depend on, as JSON has it."""
        return {name: _plain(value) for name, value in self.numbers.items()}

    def save(self, folder: Path) -> None:
        (folder / SETTINGS).write_text(json.dumps(self.facts(), indent=2) + "\n", encoding="utf-8")

    def _resized(self, frames: Tensor, size: Size) -> Tensor:
        """Frames [n, 3, height, width], uint8, in another size, as torchvision's `resize` for tensors makes them."""
        if tuple(frames.shape[-2:]) == size:
            return frames
        mode = RESAMPLES[int(self.numbers["resample"])]
        if mode == "lanczos" and _older_than(2, 12):  # transformers, too, takes the other one there
            mode = "bicubic"
        return interpolate(frames, size=list(size), mode=mode, align_corners=False, antialias=True)

    def _normalized(self, frames: Tensor) -> Tensor:
        """Frames [n, 3, height, width] in fp32, around 0."""
        scale = 1.0 / self.numbers["rescale_factor"]
        mean, std = (torch.tensor(self.numbers[name]) * scale for name in ("image_mean", "image_std"))
        return frames.float().sub_(mean[:, None, None]).div_(std[:, None, None])


class QwenFilms(Films):
    """Qwen2-VL and 2.5-VL (arXiv 2409.12191): an even number of frames at 2 a second, two of them a patch in time."""

    # A frame is 128 to 768 tokens large, as in the authors' own qwen-vl-utils.
    defaults: ClassVar[dict[str, Any]] = {
        "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28},
        "min_frames": 4,
        "max_frames": 768,
        "fps": 2.0,
        "do_sample_frames": True,
    }
    kind = "Qwen2VLVideoProcessor"

    def __init__(self, settings: Any, processor: Any, folder: Path, most: int | None) -> None:
        super().__init__(settings, processor, folder, most)
        for name in ("patch_size", "temporal_patch_size", "merge_size"):
            self.numbers.setdefault(name, getattr(processor, name))
        self._patch, self._together, self._merge = (
            int(self.numbers[name]) for name in ("patch_size", "temporal_patch_size", "merge_size")
        )

    def chosen(self, film: Film) -> list[int]:
        wanted = film.frames / film.fps * self.numbers["fps"]
        most = min(self.most or self.numbers["max_frames"], film.frames) // self._together * self._together
        count = int(min(max(wanted, self.numbers["min_frames"]), most) // self._together) * self._together
        if count == 0:
            return [0]
        numbers: list[int] = torch.arange(0, film.frames, film.frames / count).int().tolist()  # rounded as theirs
        return numbers[:count]

    def grid(self, size: Size, frames: int) -> tuple[int, int, int]:
        """Places in time, height and width."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        side, limits = self._patch * self._merge, self.numbers["size"]
        height, width = smart_resize(*size, side, limits["shortest_edge"], limits["longest_edge"])
        return math.ceil(frames / self._together), height // side, width // side

    def seconds(self, shown: Shown) -> float:
        """Between two places in time."""
        assert shown.film is not None
        return self._together / (len(shown.frames) / shown.film.frames * shown.film.fps)

    def places(self, size: Size, frames: int) -> int:
        return math.prod(self.grid(size, frames))

    def pixels(self, frames: Pixels) -> Tensors:
        times, rows, columns = self.grid((frames.shape[1], frames.shape[2]), len(frames))
        side, patch, merge = self._patch * self._merge, self._patch, self._merge
        films = self._normalized(self._resized(_channels_first(frames), (rows * side, columns * side)))
        films = torch.cat([films, films[-1:].expand(-len(films) % self._together, -1, -1, -1)])
        parts = films.view(times, self._together, 3, rows, merge, patch, columns, merge, patch)
        flat = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(times * rows * columns * merge**2, -1)
        return {"pixel_values": flat, "image_grid_thw": torch.tensor([[times, rows * merge, columns * merge]])}


class SmolVLMFilms(Films):
    """SmolVLM2 (arXiv 2504.05299): a frame a second, each one square tile with its time before it."""

    defaults: ClassVar[dict[str, Any]] = {"video_sampling": {"fps": 1, "max_frames": 64}, "do_sample_frames": True}
    kind = "SmolVLMVideoProcessor"

    def __init__(self, settings: Any, processor: Any, folder: Path, most: int | None) -> None:
        super().__init__(settings, processor, folder, most)
        self.numbers.setdefault("max_image_size", processor.max_image_size)
        sampling = self.numbers["video_sampling"]
        sampling.setdefault("video_size", self.numbers["max_image_size"])
        self.numbers |= {"size": sampling["video_size"], "num_frames": sampling["max_frames"], "fps": sampling["fps"]}
        tower = settings.vision_config
        self._a_frame = int((tower.image_size // tower.patch_size) ** 2 / settings.scale_factor**2)

    def chosen(self, film: Film) -> list[int]:
        """At even distance from the first to the last; of long films a second is left out at either end."""
        most, rate, seconds = self.most or self.numbers["num_frames"], self.numbers["fps"], film.frames / film.fps
        first, last = 0, film.frames - 1
        if seconds - 2 > most * rate:
            first, last = int(film.fps), min(int(film.frames - film.fps), last)
        if first >= last:
            first, last = 0, film.frames - 1
        count = max(1, min(round(rate * seconds), most))
        return [int(number) for number in np.unique(np.linspace(first, last, count, dtype=int))]

    def places(self, size: Size, frames: int) -> int:
        return frames * self._a_frame

    def text(self, shown: Shown, a_frame: str) -> str:
        """What stands in the text for a film. a_frame: the text of one frame."""
        from transformers.models.smolvlm.processing_smolvlm import (
            DEFAULT_MEDIA_OUTTRO,
            DEFAULT_VIDEO_INTRO,
            FRAME_TIMESTAMP_MESSAGE,
        )

        assert shown.film is not None
        seconds = int(shown.film.frames / shown.film.fps)
        length = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        text: str = DEFAULT_VIDEO_INTRO.format(frame_count=in_words(len(shown.frames)), video_duration=length)
        for number in shown.frames:
            at = number / shown.film.fps
            text += FRAME_TIMESTAMP_MESSAGE.format(timestamp=f"{int(at // 60):02}:{int(at % 60):02}") + a_frame
        return text + str(DEFAULT_MEDIA_OUTTRO)

    def pixels(self, frames: Pixels) -> Tensors:
        side, longest = self.numbers["max_image_size"]["longest_edge"], self.numbers["size"]["longest_edge"]
        scaled = self._resized(_channels_first(frames), _within((frames.shape[1], frames.shape[2]), longest))
        tiles = self._normalized(self._resized(scaled, (side, side)))[None]
        return {"pixel_values": tiles, "pixel_attention_mask": torch.ones_like(tiles[:, :, 0], dtype=torch.int64)}


class OnevisionFilms(Films):
    """LLaVA-OneVision (arXiv 2408.03326): frames at even distance, the patches of each pooled, a newline at the end."""

    defaults: ClassVar[dict[str, Any]] = {"num_frames": 32, "do_sample_frames": True}
    kind = "LlavaOnevisionVideoProcessor"

    def chosen(self, film: Film) -> list[int]:
        """Always as many, for films go through the tower together: a short film's frames are shown twice."""
        count = self.most or self.numbers["num_frames"]
        return [int(number) for number in np.linspace(0, film.frames - 1, count, dtype=int)]

    def places(self, size: Size, frames: int) -> int:
        tower = self.settings.vision_config
        return int(frames * math.ceil(tower.image_size // tower.patch_size / 2) ** 2 + 1)

    def pixels(self, frames: Pixels) -> Tensors:
        size = self.numbers["size"]
        resized = self._resized(_channels_first(frames), (size["height"], size["width"]))
        return {"pixel_values_videos": self._normalized(resized)[None]}


def in_words(number: int) -> str:
    """A number from 0 to 999 in English words, as SmolVLM was told how many frames it sees."""
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        return f"{_ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
    if number < 20:
        return _ONES[number]
    tens, rest = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_ONES[rest]}" if rest else "")


_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def _written(folder: Path) -> dict[str, Any]:
    """The settings of the folder's video processor; of a folder without them what its image processor says of films."""
    read = {name: _json(folder / name) for name in (SETTINGS, "processor_config.json", "preprocessor_config.json")}
    pictures = read["preprocessor_config.json"]
    found = read[SETTINGS] or read["processor_config.json"].get("video_processor") or {}
    if not found and "video_sampling" in pictures:
        found = {"video_sampling": pictures["video_sampling"]}
    size = dict(found.get("size") or {})
    for old, new in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if found.get(old) is not None:
            size[new] = found[old]
    return {**found, "size": size} if size else found


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _plain(value: Any) -> Any:
    """As JSON has it: transformers has a class of its own for sizes, and Pillow's numbers are an enumeration."""
    if hasattr(value, "longest_edge"):
        return dict(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _channels_first(frames: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).contiguous()


def _within(size: Size, longest: int) -> Size:
    """A size whose longer edge is `longest`; the other one even, as SmolVLM's processor rounds it."""
    height, width = size
    if width >= height:
        other = int(longest / (width / height))
        return max(other + other % 2, 1), longest
    other = int(longest * (width / height))
    return longest, max(other + other % 2, 1)


def _older_than(major: int, minor: int) -> bool:
    found = [int(part) for part in torch.__version__.split("+")[0].split(".")[:2]]
    return found < [major, minor]
