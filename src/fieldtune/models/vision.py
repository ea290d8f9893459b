"""How each family of image-language models takes pictures in: how many places one needs, what its text is, its pixels.

Places are counted from a picture's size, before a pixel is looked at. Pixels are made by the family's own image
processor of transformers, in its form for Pillow and numpy; torchvision is not needed.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fieldtune.data.encode import EncodeError
from fieldtune.data.media import CONTENTS, BrokenMedia, Ids, MediaReader, Shown
from fieldtune.errors import UserError
from fieldtune.models.films import load_film_reader
from fieldtune.models.tokenizer import Tokenizer
from fieldtune.records import Media, file_sha256
from fieldtune.sources.pictures import MediaError, picture_size, read_image

Size = tuple[int, int]  # pixels: height, width


def load_reader(folder: Path | None, tokenizer: Tokenizer) -> MediaReader | None:
    """The reader of the model in a folder in the hub's form; None for a model that does not see."""
    if folder is None or not (folder / "config.json").exists():
        return None
    from transformers import AutoConfig

    from fieldtune.models.mobile_videogpt.settings import MODEL_TYPE

    settings = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if settings.model_type == MODEL_TYPE:
        return load_film_reader(folder, tokenizer)
    reader = READERS.get(settings.model_type)
    if reader is None:
        return None
    if importlib.util.find_spec("PIL") is None:
        raise UserError("a model that sees needs the package pillow; pip install 'fieldtune[video]'")
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder} holds no image processor that transformers can read ({reason})") from None
    return reader(settings, processor, tokenizer.native)


class Reader(ABC):
    """A family whose text has a placeholder for each place and nothing around them."""

    in_text = False

    def __init__(self, settings: Any, processor: Any, tokenizer: Any) -> None:
        """settings: transformers' configuration of the model. tokenizer: transformers' too."""
        self.settings, self.processor = settings, processor
        self.place_id = int(settings.image_token_id)
        self.placeholder = str(tokenizer.convert_ids_to_tokens(self.place_id))

    def shown(self, media: Media, together: int) -> Shown:
        if media.kind != "image":
            raise EncodeError(f"it holds {media.path}, a {media.kind}; this model is shown images only")
        path = Path(media.path)
        try:
            size, content = picture_size(path), media.sha256 or file_sha256(path)
            places = self.places(size, together)
        except MediaError as error:
            raise EncodeError(f"its picture {path} {error.reason}") from None
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, MediaError) else error
            raise EncodeError(f"its picture {path} cannot be shown ({reason})") from None
        return CONTENTS.add((self, media.kind, content), lambda first: Shown(path, content, size, places, first, self))

    @abstractmethod
    def places(self, size: Size, together: int) -> int:
        """Places of a picture of `size` that is one of `together` in its row; `ValueError` if it cannot be taken."""

    def text(self, shown: Shown) -> str:
        return self.placeholder * shown.places

    def positions(self, ids: Ids) -> npt.NDArray[np.int64] | None:
        return None

    def inputs(self, shown: Sequence[Shown]) -> dict[str, Tensor]:
        made = self.processor(self._arranged([_pixels(one) for one in shown]), return_tensors="pt")
        return {name: made[name] for name in self.processor.model_input_names if name in made}

    def check(self, shown: Shown) -> None:
        read_image(shown.path)

    def _arranged(self, pictures: list[Any]) -> Any:
        return pictures

    def types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}

    def save(self, folder: Path) -> None:
        self.processor.save_pretrained(str(folder))


class LlavaReader(Reader):
    """LLaVA 1.5 (arXiv 2310.03744): the patches of the picture's middle square."""

    def places(self, size: Size, together: int) -> int:
        return self._patches() ** 2 + self._extra()

    def _patches(self) -> int:
        """Patches along a side of what the tower is shown."""
        tower = self.settings.vision_config
        return int(tower.image_size // tower.patch_size)

    def _extra(self) -> int:
        """Features of a tile besides its patches: CLIP's first one, where it is not left away."""
        first = int(self.settings.vision_config.model_type.startswith("clip"))
        return first - int(self.settings.vision_feature_select_strategy == "default")


class LlavaNextReader(LlavaReader):
    """LLaVA 1.6: the whole picture small, and tiles of it without their padding, a newline after each row."""

    most: int | None = None  # tiles whose patches are taken as they are; more are scaled down

    def places(self, size: Size, together: int) -> int:
        from transformers.image_processing_utils import select_best_resolution

        side, patches = self.settings.vision_config.image_size, self._patches()
        height, width = size
        high, wide = select_best_resolution(size, self.settings.image_grid_pinpoints)
        rows, columns = patches * (high // side), patches * (wide // side)
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        ratio = math.sqrt(rows * columns / (self.most * patches**2)) if self.most else 0.0
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return int(rows * columns + rows + patches**2 + self._extra())


class LlavaOnevisionReader(LlavaNextReader):
    """LLaVA-OneVision (arXiv 2408.03326): as 1.6, with at most so many patches of tiles."""

    def __init__(self, settings: Any, processor: Any, tokenizer: Any) -> None:
        super().__init__(settings, processor, tokenizer)
        self.most = int(settings.vision_aspect_ratio.removeprefix("anyres_max_"))

    def places(self, size: Size, together: int) -> int:
        if together > 1:  # its processor then takes each without tiles
            raise ValueError(f"a row with {together} pictures is not done with LLaVA-OneVision; give one a row")
        return super().places(size, together)

    def inputs(self, shown: Sequence[Shown]) -> dict[str, Tensor]:
        made = super().inputs(shown)
        made.pop("batch_num_images", None)
        return made


class SmolVLMReader(Reader):
    """SmolVLM and Idefics3 (arXiv 2504.05299): tiles in rows and columns, each announced by a text, and the whole."""

    def __init__(self, settings: Any, processor: Any, tokenizer: Any) -> None:
        super().__init__(settings, processor, tokenizer)
        tower = settings.vision_config
        self._a_tile = int((tower.image_size // tower.patch_size) ** 2 / settings.scale_factor**2)
        self._around = getattr(tokenizer, "fake_image_token", None) or "<fake_token_around_image>"
        self._whole = getattr(tokenizer, "global_image_token", None) or "<global-img>"

    def places(self, size: Size, together: int) -> int:
        rows, columns = self._tiles(size)
        return (rows * columns + 1) * self._a_tile

    def _tiles(self, size: Size) -> tuple[int, int]:
        """Rows and columns of tiles; none for a picture that is shown whole only."""
        from transformers.models.smolvlm.image_processing_pil_smolvlm import get_resize_output_image_size

        side = self.processor.max_image_size["longest_edge"]
        if not self.processor.do_image_splitting:
            return 0, 0
        height, width = size
        if self.processor.do_resize:  # it asks an image for its shape only
            image = np.broadcast_to(np.uint8(0), (3, *size))
            height, width = get_resize_output_image_size(image, self.processor.size["longest_edge"])
        # As its `resize_for_vision_encoder` and `split_images` do.
        ratio = width / height
        if width >= height:
            width = math.ceil(width / side) * side
            height = math.ceil(int(width / ratio) / side) * side
        else:
            height = math.ceil(height / side) * side
            width = math.ceil(int(height * ratio) / side) * side
        return (height // side, width // side) if height > side or width > side else (0, 0)

    def text(self, shown: Shown) -> str:
        from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

        rows, columns = self._tiles(shown.size)
        text: str = get_image_prompt_string(rows, columns, self._a_tile, self._around, self.placeholder, self._whole)
        return text

    def _arranged(self, pictures: list[Any]) -> Any:
        return [[one] for one in pictures]


class Qwen2VLReader(Reader):
    """Qwen2-VL and 2.5-VL (arXiv 2409.12191): a grid of merged patches as large as the picture; three positions a
    token."""

    def places(self, size: Size, together: int) -> int:
        rows, columns = self._grid(size)
        return rows * columns

    def _grid(self, size: Size) -> tuple[int, int]:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        side = self.processor.patch_size * self.processor.merge_size
        limits = self.processor.size
        height, width = smart_resize(*size, side, limits["shortest_edge"], limits["longest_edge"])
        return height // side, width // side

    def positions(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Time, height and width: equal for a text token; a place has its own in the grid, from where that begins."""
        found = np.zeros((3, len(ids)), dtype=np.int64)
        done = now = 0
        for start, shown in CONTENTS.in_order(ids):
            rows, columns = self._grid(shown.size)
            found[:, done:start] = now + np.arange(start - done)
            now += start - done
            done = start + shown.places
            found[:, start:done] = now
            found[1, start:done] += np.repeat(np.arange(rows), columns)
            found[2, start:done] += np.tile(np.arange(columns), rows)
            now += max(rows, columns)
        found[:, done:] = now + np.arange(len(ids) - done)
        return found

    def types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == self.place_id).long()}


READERS: dict[str, type[Reader]] = {
    "llava": LlavaReader,
    "llava_next": LlavaNextReader,
    "llava_onevision": LlavaOnevisionReader,
    "smolvlm": SmolVLMReader,
    "idefics3": SmolVLMReader,
    "qwen2_vl": Qwen2VLReader,
    "qwen2_5_vl": Qwen2VLReader,
}


def _pixels(shown: Shown) -> Any:
    """A picture of Pillow, for a processor would guess which axis of an array is that of colors."""
    from PIL import Image

    try:
        return Image.fromarray(read_image(shown.path))
    except MediaError as error:
        raise BrokenMedia(shown, error.reason) from None
