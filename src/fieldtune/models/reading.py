"""Reading pictures and films for a model: from where they are kept, or from their files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from fieldtune.data.media import BrokenMedia, Shown
from fieldtune.models.film_frames import Tensors
from fieldtune.sources.pictures import MediaError


class Reading(ABC):
    """kept: gives what the model takes of a picture or film in place of reading it, where somebody keeps that (see
    `models.kept_media`)."""

    kept: Callable[[Shown], Tensors] | None = None

    @abstractmethod
    def pixels(self, shown: Shown) -> Tensors:
        """What the model takes of one picture or film; `MediaError` if it cannot be read."""

    def tensors(self, shown: Shown) -> Tensors:
        """The same, kept or read."""
        return self.kept(shown) if self.kept else self.pixels(shown)

    def check(self, shown: Shown) -> None:
        self.tensors(shown)

    def must_read(self, shown: Shown) -> Tensors:
        """The same; `BrokenMedia` if it cannot be read."""
        return _readable(self.tensors, shown)

    def must_see(self, shown: Shown) -> Tensors:
        """Its pixels, whatever is kept; `BrokenMedia` if it cannot be read."""
        return _readable(self.pixels, shown)


def _readable(read: Callable[[Shown], Tensors], shown: Shown) -> Tensors:
    try:
        return read(shown)
    except MediaError as error:
        raise BrokenMedia(shown, error.reason) from None
