"""Pictures as arrays, and the one error that every reader of media files gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune.errors import UserError

Pixels = NDArray[np.uint8]
TURNED = (5, 6, 7, 8)  # values of EXIF's orientation for which height and width change places


class MediaError(ValueError):
    """A media file cannot be used. Its message is one line that names the file; `reason` is without the name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        self.reason = " ".join(reason.split())
        super().__init__(f"{' '.join(str(path).split())}: {self.reason}")


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """In here whatever a foreign decoder raises becomes a `MediaError`: the file, `what`, the decoder's own words."""
    try:
        yield
    except (MediaError, UserError):
        raise
    except MemoryError:
        raise MediaError(path, "does not fit into memory") from None
    except Exception as error:  # decoders raise whatever their parsers stumble over: SyntaxError, struct.error, ...
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(path, f"{what} ({str(words).splitlines()[0]})") from error


def read_image(path: Path) -> Pixels:
    """A picture as RGB, uint8 [height, width, 3], turned as its EXIF says.

    Transparency is dropped, 16-bit gray brought to 8 bits; of an animation the first picture is read. Raises
    `MediaError` for a file that is missing, cut off or no picture, `UserError` without Pillow.
    """
    with _opened(path) as image:
        from PIL import ImageOps

        return np.array(_eight_bits(ImageOps.exif_transpose(image)).convert("RGB"), dtype=np.uint8)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width, pixels, of what `read_image` gives; only the file's head is read. Its errors."""
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(0x0112) in TURNED else (height, width)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A picture of Pillow; whatever its decoder raises within is a `MediaError`."""
    try:
        from PIL import Image
    except ImportError:
        raise UserError(f"{path}: pictures need the package pillow; pip install 'fieldtune[video]'") from None
    with reading(path, "is not a picture that can be read"), Image.open(path) as image:
        yield image


def _eight_bits(image: Any) -> Any:
    """16-bit gray as 8-bit: Pillow by itself makes everything above 255 white."""
    if not image.mode.startswith("I"):
        return image
    from PIL import Image

    return Image.fromarray(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))
