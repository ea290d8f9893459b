"""Rows without what their pictures show: a model that is as good at them has not looked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fieldtune.config import Ablation
from fieldtune.errors import UserError
from fieldtune.records import Example, Media, Message, file_sha256
from fieldtune.sources.pictures import MediaError, picture_size

Change = Callable[[Example], Example]
GRAY = (128, 128, 128)
NOTES = {
    Ablation.text_only: "The pictures were left out of these rows (evaluation.ablation=text_only): the figures say "
    "what the model knows without looking.",
    Ablation.blank: "Each picture was shown as a gray one (evaluation.ablation=blank): the figures say what the model "
    "knows without looking.",
}


def ablated(kind: Ablation, folder: Path) -> Change:
    """What is done with each row before it is asked. folder: where gray pictures are written, one for each size.

    The change raises `UserError` for a row with a film to be gray, or with a picture that is gone.
    """
    if kind is Ablation.none:
        return lambda example: example
    return lambda example: replace(example, messages=tuple(_without(one, kind, folder) for one in example.messages))


def _without(message: Message, kind: Ablation, folder: Path) -> Message:
    if not message.media:
        return message
    if kind is Ablation.text_only:
        return replace(message, parts=message.texts or ("",))
    parts = tuple(_blank(part, folder) if isinstance(part, Media) else part for part in message.parts)
    return replace(message, parts=parts)


def _blank(media: Media, folder: Path) -> Media:
    """A gray picture as large as another."""
    if media.kind != "image":
        raise UserError(
            f"evaluation.ablation=blank: {media.path} is a {media.kind}; give evaluation.ablation=text_only"
        )
    try:
        height, width = picture_size(Path(media.path))
    except MediaError as error:
        raise UserError(f"evaluation.ablation=blank: the picture {error}") from None
    path = folder / f"gray-{height}x{width}.png"
    if not path.exists():
        from PIL import Image

        Image.new("RGB", (width, height), GRAY).save(path)
    return Media("image", str(path.resolve()), file_sha256(path))
