"""Rows without what their pictures or films show: a model that is as good at them has not looked, or not in order."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import numpy as np

from fieldtune.config import Ablation
from fieldtune.errors import UserError
from fieldtune.records import Example, Media, Message, file_sha256
from fieldtune.sources.decoder import Decoder
from fieldtune.sources.film_writer import EXACT, write_film
from fieldtune.sources.pictures import MediaError, Pixels, picture_size
from fieldtune.sources.video import Film

Change = Callable[[Example], Example]
GRAY = (128, 128, 128)
AT_ONCE = 64  # frames of a shuffled film that are in memory
OF_FILMS = (Ablation.first_frame, Ablation.shuffled)
NOTES = {
    Ablation.text_only: "Pictures and films were left out of these rows (evaluation.ablation=text_only): the figures "
    "say what the model knows without looking.",
    Ablation.blank: "Each picture or film was shown gray all over (evaluation.ablation=blank): the figures say what "
    "the model knows without looking.",
    Ablation.first_frame: "Each film showed its first frame all the time (evaluation.ablation=first_frame): the "
    "figures say what the model knows without looking at what moves.",
    Ablation.shuffled: "Each film's frames were shown in another order (evaluation.ablation=shuffled): the figures say "
    "what the model knows without looking at the order.",
}


def ablated(kind: Ablation, folder: Path, seed: int) -> Change:
    """What is done with each row before it is asked. folder: where changed pictures and films are written; it is made.
    seed: of the order of shuffled frames, which also depends on the film.

    The change raises `UserError` for a row with a picture to be shown in another order, or with a file that is gone.
    """
    if kind is Ablation.none:
        return lambda example: example
    if kind is Ablation.text_only:
        return lambda example: replace(example, messages=tuple(map(_words, example.messages)))
    shown = _Shown(kind, folder, seed)
    return lambda example: replace(example, messages=tuple(map(shown.message, example.messages)))


def _words(message: Message) -> Message:
    return replace(message, parts=message.texts or ("",)) if message.media else message


class _Shown:
    """Media as an ablation shows them: as other files, so that all that reads them is as without it."""

    def __init__(self, kind: Ablation, folder: Path, seed: int) -> None:
        self._kind, self._folder, self._seed = kind, folder, seed
        self._decoder = Decoder()
        weakref.finalize(self, self._decoder.close)  # with the change, at the end of the program at the latest
        folder.mkdir(parents=True, exist_ok=True)

    def message(self, message: Message) -> Message:
        parts = tuple(self._changed(part) if isinstance(part, Media) else part for part in message.parts)
        return replace(message, parts=parts)

    def _changed(self, media: Media) -> Media:
        try:
            path = self._picture(Path(media.path)) if media.kind == "image" else self._film(media)
        except MediaError as error:
            raise UserError(f"evaluation.ablation={self._kind.name}: the {media.kind} {error}") from None
        return Media(media.kind, str(path.resolve()), file_sha256(path))

    def _picture(self, picture: Path) -> Path:
        """A gray one as large as another."""
        if self._kind in OF_FILMS:
            raise UserError(
                f"evaluation.ablation={self._kind.name}: {picture} is an image, which has no frames; "
                "give evaluation.ablation=text_only or blank"
            )
        height, width = picture_size(picture)
        path = self._folder / f"gray-{height}x{width}.png"
        if not path.exists():
            from PIL import Image

            Image.new("RGB", (width, height), GRAY).save(path)
        return path

    def _film(self, media: Media) -> Path:
        """One with as many frames, as large and as fast as another, whose pixels are read back as they were."""
        film = Path(media.path)
        content = media.sha256 or file_sha256(film)
        path = self._folder / f"{content}.mp4"
        if not path.exists():
            facts = self._decoder.probe(film)
            rate = Fraction(facts.fps).limit_denominator(1001)
            beside = path.with_suffix(".part")
            write_film(beside, self._frames(film, facts, content), rate, EXACT)
            beside.replace(path)
        return path

    def _frames(self, path: Path, film: Film, content: str) -> Iterator[Pixels]:
        if self._kind is Ablation.blank:
            yield from repeat(np.full((film.height, film.width, 3), GRAY, dtype=np.uint8), film.frames)
        elif self._kind is Ablation.first_frame:
            yield from repeat(self._read(path, [0])[0], film.frames)
        else:
            numbers = another_order(film.frames, f"{self._seed} {content}")
            for start in range(0, len(numbers), AT_ONCE):
                yield from self._read(path, numbers[start : start + AT_ONCE])

    def _read(self, path: Path, numbers: list[int]) -> Pixels:
        return self._decoder.frames(path, lambda _: numbers)[2]


def another_order(count: int, seed: str) -> list[int]:
    """The numbers below count in a random order that is not their own, if there is another."""
    rng, numbers = random.Random(seed), list(range(count))
    while count > 1 and numbers == sorted(numbers):
        rng.shuffle(numbers)
    return numbers
