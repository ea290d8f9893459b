"""Pictures and films of the rows that the report shows: thumbnails and contact sheets within the page. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fieldtune.errors import UserError
from fieldtune.evaluation.report_input import ShownFile
from fieldtune.sources.contact_sheet import data_uri, film_sheet
from fieldtune.sources.decoder import Decoder
from fieldtune.sources.pictures import MediaError

WIDTH, COLUMNS = 160, 4  # of a frame, pixels; frames side by side
PICTURE = 320  # width and height of a picture at most, pixels
CHOSEN = "the frames that the tuned model chose"
TIMEOUT = 60.0  # seconds that reading a file may take


def pictures(files: Sequence[ShownFile], decoder: Decoder) -> list[dict[str, str]]:
    """Each file for the report: the address of a picture with the page, and words on it. Without an address where it
    cannot be read any more."""
    found = []
    for file in files:
        try:
            uri, words = _picture(file, decoder)
        except (MediaError, UserError, OSError) as error:
            reason = error.reason if isinstance(error, MediaError) else str(error)
            uri, words = "", f"{Path(file.path).name} cannot be shown ({reason})"
        found.append({"uri": uri, "words": words})
    return found


def _picture(file: ShownFile, decoder: Decoder) -> tuple[str, str]:
    path = Path(file.path)
    if file.type == "image":
        from PIL import Image

        picture = Image.fromarray(decoder.image(path))
        picture.thumbnail((PICTURE, PICTURE))
        return data_uri(picture), path.name
    times = list(zip(file.frames, file.seconds, strict=True))
    sheet = film_sheet(decoder, path, times, COLUMNS, WIDTH)
    return data_uri(sheet), f"{path.name}: " + (CHOSEN if times else "frames at even distance")
