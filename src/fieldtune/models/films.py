"""How Mobile-VideoGPT takes films in: places of one film, its frames, and what is kept of them between epochs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from fieldtune.data.encode import EncodeError
from fieldtune.data.media import CONTENTS, Ids, Shown
from fieldtune.errors import UserError
from fieldtune.models.film_frames import Tensors, film_decoder
from fieldtune.models.reading import Reading
from fieldtune.models.tokenizer import Tokenizer
from fieldtune.records import Media, MediaKind, file_sha256
from fieldtune.sources.pictures import Pixels
from fieldtune.sources.video import Film, sample_16

if TYPE_CHECKING:
    from fieldtune.models.mobile_videogpt.shapes import Shape

PLACEHOLDER = "<|video_pad|>"  # a special token of Qwen2.5's own


@dataclass(frozen=True, slots=True)
class Moments:
    """Frames of a film by number, and when each is shown, in seconds from the film's beginning."""

    frames: Sequence[int]
    seconds: Sequence[float]

    def at(self, places: Iterable[int]) -> Moments:
        """Those at some places of the list; a place beyond its end, where a short film has no frame, is passed over."""
        there = [place for place in places if place < len(self.frames)]
        return Moments([self.frames[place] for place in there], [self.seconds[place] for place in there])


def load_film_reader(folder: Path, tokenizer: Tokenizer) -> FilmReader:
    """The reader of the Mobile-VideoGPT in a folder of the released layout."""
    from fieldtune.models.mobile_videogpt.checkpoint import read_shape

    for module, package in (("PIL", "pillow"), ("av", "av")):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"a model that sees films needs the package {package}; pip install 'fieldtune[video]'")
    return FilmReader(read_shape(folder), tokenizer)


class FilmReader(Reading):
    """A film is always as many places, whatever its length: `Shape.embeddings`."""

    in_text = True

    def __init__(self, shape: Shape, tokenizer: Tokenizer) -> None:
        place = tokenizer.encode(PLACEHOLDER, special=True)
        if len(place) != 1:
            raise UserError(
                f"the tokenizer has no token {PLACEHOLDER}, which stands for a film; give that of Qwen2.5, which has it"
            )
        self.shape = shape
        self.placeholders: dict[MediaKind, str] = {"video": PLACEHOLDER}
        self.place_ids: dict[MediaKind, int] = {"video": place[0]}

    def shown(self, media: Media, together: int) -> Shown:
        if media.kind != "video":
            raise EncodeError(f"it holds {media.path}, an {media.kind}; this model is shown films only")
        path = Path(media.path)
        try:
            content = media.sha256 or file_sha256(path)
            found = path.is_file()
        except OSError as error:
            raise EncodeError(f"its film {path} cannot be shown ({error})") from None
        if not found:
            raise EncodeError(f"its film {path} cannot be shown (there is no such file)")
        size = (self.shape.image_size, self.shape.image_size)
        places = self.shape.embeddings
        return CONTENTS.add(
            (self, media.kind, content), lambda first: Shown(path, content, size, places, first, self, "video")
        )

    def text(self, shown: Shown) -> str:
        return PLACEHOLDER * shown.places

    def positions(self, ids: Ids) -> npt.NDArray[Any] | None:
        return None

    def inputs(self, shown: Sequence[Shown]) -> Tensors:
        """Of several films what `MobileVideoGPT.get_image_features` takes; `BrokenMedia` if one cannot be read."""
        films = [self.must_read(one) for one in shown]
        return {name: torch.stack([film[name] for film in films]) for name in films[0]}

    def values(self, shown: Shown) -> int:
        return 2 * self.shape.frames * 3 * self.shape.image_size**2

    def pixels(self, shown: Shown) -> Tensors:
        """A film's pixels for both towers; `MediaError` if it cannot be read."""
        from fieldtune.models.mobile_videogpt.preprocess import film_pixels

        context, frames = film_pixels(self.frames(shown), self.shape)
        return {"context": context, "frames": frames}

    def frames(self, shown: Shown) -> Pixels:
        """The frames that are sampled [n, height, width, 3], decoded in a process of its own."""
        return self.sampled(shown)[1]

    def sampled(self, shown: Shown) -> tuple[Moments, Pixels]:
        """Which frames are sampled, and those frames [n, height, width, 3]; `MediaError` if they cannot be read."""
        film, numbers, frames = film_decoder().frames(shown.path, self._sampled)
        return Moments(numbers, [number / film.fps for number in numbers]), frames

    def _sampled(self, film: Film) -> list[int]:
        return sample_16(film, self.shape.frames)

    def plain(self, ids: Tensor, shown: Sequence[Shown]) -> Tensors:
        """The network itself takes negative ids for places."""
        return {"input_ids": ids.clamp(min=-1), **self.inputs(shown)}

    def save(self, folder: Path) -> None:
        """Nothing: what a film becomes is decided by the model's sizes."""
