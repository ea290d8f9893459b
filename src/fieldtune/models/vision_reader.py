"""How a family of models that see is told of pictures and films: their places, their text, their pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fieldtune.data.encode import EncodeError
from fieldtune.data.media import CONTENTS, Ids, Shown
from fieldtune.models.film_frames import Films, Size, Tensors, film_decoder
from fieldtune.models.reading import Reading
from fieldtune.records import Media, MediaKind, file_sha256
from fieldtune.sources.pictures import MediaError, picture_size, read_image
from fieldtune.sources.video import Film

Made = tuple[str, Callable[[int], Shown]]  # the content's sum, and what makes it of the number of its first place


class Reader(Reading):
    """A family whose text has a placeholder for each place and nothing around them."""

    in_text = False
    takes_films: ClassVar[type[Films] | None] = None

    def __init__(self, settings: Any, processor: Any, tokenizer: Any, films: Films | None = None) -> None:
        """settings: transformers' configuration of the model. tokenizer: transformers' too."""
        self.settings, self.processor, self.films = settings, processor, films
        self.place_ids: dict[MediaKind, int] = {"image": int(settings.image_token_id)}
        if films is not None:
            self.place_ids["video"] = int(settings.video_token_id)
        self.placeholders: dict[MediaKind, str] = {
            kind: str(tokenizer.convert_ids_to_tokens(index)) for kind, index in self.place_ids.items()
        }
        self._known: dict[str, Film] = {}  # films by content: a film of many rows is opened once

    def shown(self, media: Media, together: int) -> Shown:
        if media.kind not in self.place_ids:
            raise EncodeError(f"it holds {media.path}, a {media.kind}; this model is shown images only")
        path, what = Path(media.path), "picture" if media.kind == "image" else "film"
        try:
            content, made = self._picture(media, together) if media.kind == "image" else self._film(media)
        except MediaError as error:
            raise EncodeError(f"its {what} {path} {error.reason}") from None
        except (OSError, ValueError) as error:
            raise EncodeError(f"its {what} {path} cannot be shown ({error})") from None
        return CONTENTS.add((self, media.kind, content), made)

    def _picture(self, media: Media, together: int) -> Made:
        path = Path(media.path)
        size = picture_size(path)
        content, places = media.sha256 or file_sha256(path), self.places(size, together)
        return content, lambda first: Shown(path, content, size, places, first, self)

    def _film(self, media: Media) -> Made:
        assert self.films is not None
        path = Path(media.path)
        content = media.sha256 or file_sha256(path)
        if content not in self._known:
            self._known[content] = film_decoder().probe(path)
        film = self._known[content]
        size, frames = (film.height, film.width), tuple(self.films.chosen(film))
        places = self.films.places(size, len(frames))
        return content, lambda first: Shown(path, content, size, places, first, self, "video", film, frames)

    @abstractmethod
    def places(self, size: Size, together: int) -> int:
        """Places of a picture of `size` that is one of `together` in its row; `ValueError` if it cannot be taken."""

    def text(self, shown: Shown) -> str:
        return self.placeholders[shown.kind] * shown.places

    def positions(self, ids: Ids) -> npt.NDArray[np.int64] | None:
        return None

    def inputs(self, shown: Sequence[Shown]) -> Tensors:
        return joined([self.must_read(one) for one in shown])

    def plain_pixels(self, shown: Sequence[Shown]) -> Tensors:
        """What the model itself takes of them, in place of a look that may be kept."""
        return joined([self.must_see(one) for one in shown])

    def sampling(self, shown: Shown) -> dict[str, Any]:
        """Which frames of a film are taken, for a cache."""
        return {"frames": list(shown.frames), "film": None if shown.film is None else asdict(shown.film)}

    def identity(self, kind: MediaKind) -> dict[str, Any]:
        """What pixels of a kind depend on beside the file and the frames, for a cache."""
        numbers = self.processor.to_dict() if self.films is None or kind == "image" else self.films.facts()
        return {"model": self.settings.model_type, "numbers": numbers}

    @abstractmethod
    def values(self, shown: Shown) -> int:
        """How many numbers the pixels of a picture or film are."""

    @abstractmethod
    def look_shape(self, shown: Shown) -> tuple[int, ...]:
        """The shape of what the vision tower gives to the projector (see `models.looks`)."""

    def pixels(self, shown: Shown) -> Tensors:
        """What the model takes of one picture or film; `MediaError` if it cannot be read."""
        if shown.film is not None:
            assert self.films is not None
            return self.films.pixels(film_decoder().frames(shown.path, lambda _: list(shown.frames))[2])
        from PIL import Image

        # A picture of Pillow, for a processor would guess which axis of an array is that of colors.
        made = self.processor(self._arranged([Image.fromarray(read_image(shown.path))]), return_tensors="pt")
        return {name: made[name] for name in self.processor.model_input_names if name in made}

    def _arranged(self, pictures: list[Any]) -> Any:
        return pictures

    def plain(self, ids: Tensor, shown: Sequence[Shown]) -> Tensors:
        return {"input_ids": self.with_place_ids(ids, shown), **self.plain_pixels(shown)}

    def with_place_ids(self, ids: Tensor, shown: Sequence[Shown]) -> Tensor:
        """Ids with the model's own token at each place."""
        for one in shown:
            number = -1 - ids
            there = (number >= one.first) & (number < one.first + one.places)
            ids = ids.masked_fill(there, self.place_ids[one.kind])
        return ids

    def save(self, folder: Path) -> None:
        self.processor.save_pretrained(str(folder))
        if self.films is not None:
            self.films.save(folder)


def joined(parts: Sequence[Tensors]) -> Tensors:
    """Several pictures and films as one input: one after the other, and zeros where one has fewer tiles."""
    together: Tensors = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        those = [part[name] for part in parts if name in part]
        shape = [max(one.shape[axis] for one in those) for axis in range(1, those[0].ndim)]
        together[name] = torch.cat([_padded(one, shape) for one in those])
    return together


def _padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """With zeros at the end of each axis but the first."""
    if list(tensor.shape[1:]) == list(shape):
        return tensor
    padded = tensor.new_zeros(tensor.shape[0], *shape)
    padded[tuple(slice(length) for length in tensor.shape)] = tensor
    return padded
