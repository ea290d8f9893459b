"""Which of a model's pictures and films are kept, in which form, while it is trained or asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fieldtune.config import Config, VisionPart
from fieldtune.data.media import MediaReader
from fieldtune.data.media_cache import MediaCache
from fieldtune.models.films import FilmReader
from fieldtune.models.kept_films import KeptFilms
from fieldtune.models.kept_looks import KeptLooks, keeps_looks
from fieldtune.models.kept_media import KeptMedia
from fieldtune.models.kept_pixels import KeptPixels
from fieldtune.models.loss import unwrapped
from fieldtune.models.vision_reader import Reader

FOLDER = "media"  # in cache_dir


def keep_media(config: Config, model: Any, reader: MediaReader | None) -> KeptMedia | None:
    """What keeps the films and pictures of a model, which its reader then reads from; None for a model that does not
    see, or if nothing is to be kept (`trainer.media_cache_gb=0`)."""
    if not isinstance(reader, FilmReader | Reader) or config.trainer.media_cache_gb == 0:
        return None
    cache = MediaCache(Path(config.cache_dir).expanduser() / FOLDER, int(config.trainer.media_cache_gb * 1e9))
    frozen = config.adapter.vision is VisionPart.frozen
    kept: KeptMedia
    if isinstance(reader, FilmReader):
        kept = KeptFilms(cache, reader, unwrapped(model), config.hardware.precision, frozen=frozen)
    elif keeps_looks(config):
        kept = KeptLooks(cache, reader, unwrapped(model), config.hardware.precision)
    else:
        kept = KeptPixels(cache, reader)
    reader.kept = kept.tensors
    return kept


def set_towers_apart(model: Any, reader: MediaReader | None, device: torch.device) -> None:
    """Before a model's weights are shared out: frozen towers of one that sees films stay whole on each rank, which can
    so look alone at a film whose entry is gone."""
    if isinstance(reader, FilmReader) and unwrapped(model).towers_frozen:
        unwrapped(model).set_towers_apart(device)


@contextmanager
def keeping_media(config: Config, model: Any, reader: MediaReader | None) -> Iterator[KeptMedia | None]:
    """`keep_media` while a model is asked. Another model's towers may see something else."""
    kept = keep_media(config, model, reader)
    try:
        yield kept
    finally:
        if isinstance(reader, FilmReader | Reader):
            reader.kept = None
