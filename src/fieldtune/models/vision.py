"""How each family of models takes pictures and films in: how many places one needs, what its text is, its pixels.

Places are counted from a picture's size, before a pixel is looked at. Pixels are made by the family's own image
processor of transformers, in its form for Pillow and numpy, those of films by `film_frames`; torchvision is not needed.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fieldtune.data.media import CONTENTS, Ids, MediaReader, Shown
from fieldtune.errors import UserError
from fieldtune.models.film_frames import Films, OnevisionFilms, QwenFilms, Size, SmolVLMFilms, Tensors
from fieldtune.models.films import load_film_reader
from fieldtune.models.tokenizer import Tokenizer
from fieldtune.models.vision_reader import Reader


def load_reader(folder: Path | None, tokenizer: Tokenizer, frames: int | None = None) -> MediaReader | None:
    """The reader of the model in a folder in the hub's form; None for a model that does not see.

    frames: of a film, at most; null: as many as the family takes.
    """
    if folder is None or not (folder / "config.json").exists():
        return None
    from transformers import AutoConfig

    from fieldtune.models.mobile_videogpt.settings import MODEL_TYPE

    settings = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if settings.model_type == MODEL_TYPE:
        if frames is not None:
            raise UserError(f"model.frames={frames}: a Mobile-VideoGPT has a number of its own; leave model.frames out")
        return load_film_reader(folder, tokenizer)
    reader = READERS.get(settings.model_type)
    if reader is None:
        return None
    if frames is not None and reader.takes_films is None:
        raise UserError(f"model.frames={frames}: a {settings.model_type} takes no films; leave model.frames out")
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
    films = reader.takes_films(settings, processor, folder, frames) if reader.takes_films else None
    return reader(settings, processor, tokenizer.native, films)


def must_look_alike(media: Sequence[Shown]) -> None:
    """`UserError` for pictures and films of a family whose tower is called once for each kind: where weights are shared
    out, ranks would wait for one another if one of them has both in a pass."""
    if len({one.kind for one in media}) > 1 and isinstance(media[0].reader, LlavaOnevisionReader):
        raise UserError(
            "pictures and films together are not done with LLaVA-OneVision where its weights are shared out; give "
            "hardware.strategy=ddp, or a data set of one kind"
        )


class LlavaReader(Reader):
    """LLaVA 1.5 (arXiv 2310.03744): the patches of the picture's middle square."""

    def places(self, size: Size, together: int) -> int:
        return self._patches() ** 2 + self._extra()

    def values(self, shown: Shown) -> int:
        return int(self._tiles(shown) * 3 * self.settings.vision_config.image_size**2)

    def look_shape(self, shown: Shown) -> tuple[int, ...]:
        layers = self.settings.vision_feature_layer
        width = self.settings.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
        return self._tiles(shown), self._patches() ** 2 + self._extra(), width

    def _tiles(self, shown: Shown) -> int:
        return len(shown.frames) or self._tile_count(shown.size)

    def _tile_count(self, size: Size) -> int:
        """Squares that the tower is shown of a picture."""
        return 1

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

    def _tile_count(self, size: Size) -> int:
        from transformers.image_processing_utils import select_best_resolution

        high, wide = select_best_resolution(size, self.settings.image_grid_pinpoints)
        return int(1 + high * wide // self.settings.vision_config.image_size**2)


class LlavaOnevisionReader(LlavaNextReader):
    """LLaVA-OneVision (arXiv 2408.03326): as 1.6, with at most so many patches of tiles."""

    takes_films = OnevisionFilms

    def __init__(self, settings: Any, processor: Any, tokenizer: Any, films: Films | None = None) -> None:
        super().__init__(settings, processor, tokenizer, films)
        self.most = int(settings.vision_aspect_ratio.removeprefix("anyres_max_"))

    def places(self, size: Size, together: int) -> int:
        if together > 1:  # its processor then takes each without tiles
            raise ValueError(f"a row with {together} pictures is not done with LLaVA-OneVision; give one a row")
        return super().places(size, together)

    def pixels(self, shown: Shown) -> Tensors:
        made = super().pixels(shown)
        made.pop("batch_num_images", None)
        return made


class Idefics3Reader(Reader):
    """Idefics3 and the first SmolVLM: tiles in rows and columns, each announced by a text, and the whole."""

    def __init__(self, settings: Any, processor: Any, tokenizer: Any, films: Films | None = None) -> None:
        super().__init__(settings, processor, tokenizer, films)
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

    def values(self, shown: Shown) -> int:
        return int(self._count(shown) * 4 * self.processor.max_image_size["longest_edge"] ** 2)  # colors and a mask

    def look_shape(self, shown: Shown) -> tuple[int, ...]:
        tower = self.settings.vision_config
        return self._count(shown), self._a_tile * self.settings.scale_factor**2, tower.hidden_size

    def _count(self, shown: Shown) -> int:
        """Tiles of a picture, frames of a film."""
        rows, columns = (0, 0) if shown.frames else self._tiles(shown.size)
        return len(shown.frames) or rows * columns + 1

    def text(self, shown: Shown) -> str:
        return self._tiled(*self._tiles(shown.size))

    def _tiled(self, rows: int, columns: int) -> str:
        """The text of a picture in so many tiles and as a whole."""
        from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

        place = self.placeholders["image"]
        text: str = get_image_prompt_string(rows, columns, self._a_tile, self._around, place, self._whole)
        return text

    def _arranged(self, pictures: list[Any]) -> Any:
        return [[one] for one in pictures]


class SmolVLMReader(Idefics3Reader):
    """SmolVLM and SmolVLM2 (arXiv 2504.05299). A film's frames are pictures of one tile, with texts around them."""

    takes_films = SmolVLMFilms

    def __init__(self, settings: Any, processor: Any, tokenizer: Any, films: Films | None = None) -> None:
        from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

        settings.video_token_id = settings.image_token_id
        super().__init__(settings, processor, tokenizer, films)
        self.placeholders["video"] = str(getattr(tokenizer, "video_token", None) or "<video>")
        if self.placeholders["video"] not in (tokenizer.chat_template or ""):
            tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE  # as the family's processor does where it sees a film

    def text(self, shown: Shown) -> str:
        if shown.film is None:
            return super().text(shown)
        assert isinstance(self.films, SmolVLMFilms)
        return self.films.text(shown, self._tiled(0, 0))


class Qwen2VLReader(Reader):
    """Qwen2-VL and 2.5-VL (arXiv 2409.12191): a grid of merged patches as large as the picture, of a film one for two
    frames; three positions a token."""

    takes_films = QwenFilms
    films: QwenFilms

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
        """Time, height and width: equal for a text token; a place has its own in the grid, from where that begins.

        What follows begins after the largest of them (section 2.1 of the paper). transformers 5.23 counts it from
        height and width alone, so that text after a long film would stand among its places.
        """
        found = np.zeros((3, len(ids)), dtype=np.int64)
        done = now = 0
        for start, shown in CONTENTS.in_order(ids):
            found[:, done:start] = now + np.arange(start - done)
            now += start - done
            done = start + shown.places
            found[:, start:done] = now + self._within(shown)
            now = int(found[:, start:done].max()) + 1
        found[:, done:] = now + np.arange(len(ids) - done)
        return found

    def _within(self, shown: Shown) -> npt.NDArray[np.int64]:
        """Positions of a picture's or film's places, from its first one on [3, places]."""
        if shown.film is None:
            return np.indices((1, *self._grid(shown.size))).reshape(3, -1)
        times, rows, columns = self.films.grid(shown.size, len(shown.frames))
        within = np.indices((times, rows, columns)).reshape(3, -1)
        rate = getattr(self.settings.vision_config, "tokens_per_second", None)  # of 2.5: positions are moments
        if rate is not None:
            step = rate * torch.tensor(self.films.seconds(shown))  # rounded as transformers does
            within[0] = (torch.arange(times) * step).long().numpy().repeat(rows * columns)
        return within

    def values(self, shown: Shown) -> int:
        merged = self.processor.merge_size**2 * self.processor.patch_size**2
        return int(shown.places * merged * 3 * self.processor.temporal_patch_size)

    def look_shape(self, shown: Shown) -> tuple[int, ...]:
        tower = self.settings.vision_config
        width = getattr(tower, "embed_dim", None) or tower.hidden_size  # hidden_size of Qwen2-VL: of the text
        return shown.places, self.processor.merge_size**2 * width

    def plain(self, ids: Tensor, shown: Sequence[Shown]) -> Tensors:
        plain = self.with_place_ids(ids, shown)
        films = [one for one in shown if one.film is not None]
        kinds = (plain == self.place_ids["image"]).long() + 2 * (plain == self.place_ids["video"]).long()
        told = {"input_ids": plain, **self.plain_pixels([one for one in shown if one.film is None])}
        if films:
            seen = self.plain_pixels(films)
            told |= {"pixel_values_videos": seen["pixel_values"], "video_grid_thw": seen["image_grid_thw"]}
            told["position_ids"] = torch.stack([torch.from_numpy(self.positions(row.numpy())) for row in ids], 1)
        return told | {"mm_token_type_ids": kinds}


READERS: dict[str, type[Reader]] = {
    "llava": LlavaReader,
    "llava_next": LlavaNextReader,
    "llava_onevision": LlavaOnevisionReader,
    "smolvlm": SmolVLMReader,
    "idefics3": Idefics3Reader,
    "qwen2_vl": Qwen2VLReader,
    "qwen2_5_vl": Qwen2VLReader,
}
