"""Contact sheets: frames of a film side by side, each with what is said of it below. Pillow, no torch."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fieldtune.errors import UserError
from fieldtune.sources.decoder import Decoder
from fieldtune.sources.pictures import Pixels
from fieldtune.sources.video import uniform

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

SHEETS = (".png", ".jpg", ".jpeg")  # what a sheet may be written as
PAPER, INK, MUTED = (253, 253, 252), (28, 32, 36), (91, 99, 108)
GAP, LINE, FONT = 8, 20, 13  # pixels: between frames, height of a line of text, size of its letters
QUALITY = 82  # of JPEG
OTHERS = 8  # frames that are shown of a film of which none are given


def when(number: int, seconds: float) -> str:
    """What is said of a frame: its number in the film and its time."""
    return f"frame {number}, {seconds:.2f} s"


def contact_sheet(
    frames: Sequence[Pixels], captions: Sequence[str], columns: int, width: int, title: str = ""
) -> Image:
    """Frames in rows of `columns`, each `width` pixels wide, in the order given. title: a line above them."""
    from PIL import Image as images
    from PIL import ImageDraw as drawing
    from PIL import ImageFont as fonts

    if not frames or columns < 1:
        raise ValueError(f"a sheet needs a frame and a column, got {len(frames)} and {columns}")
    pictures = [images.fromarray(frame) for frame in frames]
    height = max(1, round(width * pictures[0].height / pictures[0].width))
    columns = min(columns, len(pictures))
    rows, top = math.ceil(len(pictures) / columns), GAP + (LINE if title else 0)
    size = (GAP + columns * (width + GAP), top + rows * (height + LINE + GAP))
    sheet, font = images.new("RGB", size, PAPER), fonts.load_default(FONT)
    pen = drawing.Draw(sheet)
    if title:
        pen.text((GAP, GAP // 2), _fitting(title, pen, font, size[0] - 2 * GAP), INK, font)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, upper = GAP + number % columns * (width + GAP), top + number // columns * (height + LINE + GAP)
        sheet.paste(picture.resize((width, height), images.Resampling.LANCZOS), (left, upper))
        pen.text((left, upper + height + 2), _fitting(caption, pen, font, width), MUTED, font)
    return sheet


def film_sheet(
    decoder: Decoder, film: Path, times: Sequence[tuple[int, float]], columns: int, width: int, title: str = ""
) -> Image:
    """Frames of a film, given by number and seconds; without any, some at even distance. `MediaError` if it cannot be
    read."""
    if times:
        frames = decoder.frames(film, lambda _: [number for number, _ in times])[2]
    else:
        facts, numbers, frames = decoder.frames(film, uniform(OTHERS))
        times = [(number, number / facts.fps) for number in numbers]
    return contact_sheet(list(frames), [when(number, seconds) for number, seconds in times], columns, width, title)


def save_sheet(sheet: Image, path: Path) -> None:
    """Write a sheet whole or not at all; what it is, its name says. `UserError` where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.stem}.part{path.suffix}")
        try:
            sheet.save(beside, quality=QUALITY)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); give another place") from None


def data_uri(picture: Image) -> str:
    """A picture for a page that has it within: JPEG in base64."""
    into = io.BytesIO()
    picture.convert("RGB").save(into, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(into.getvalue()).decode('ascii')}"


def _fitting(text: str, pen: ImageDraw, font: Font, width: int) -> str:
    """As much of a text as fits, on one line."""
    text = "".join(letter for letter in text if letter.isprintable())
    while text and pen.textlength(text, font) > width:
        text = text[:-1]
    return text
