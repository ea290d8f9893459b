"""What a model is shown: media that can be read, and the frames that it chooses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fieldtune.config import Accelerator, Config
from fieldtune.data.broken_media import without_broken
from fieldtune.data.encode import Encoded
from fieldtune.data.load import Rows, media_of_rows
from fieldtune.models.films import Moments
from fieldtune.models.keeping import keeping_media
from fieldtune.models.kept_films import chosen_frames
from fieldtune.models.kept_media import KeptMedia
from fieldtune.models.run_model import RunModel
from fieldtune.ranks import Rank
from fieldtune.records import Example
from fieldtune.sources.pictures import MediaError

log = logging.getLogger("fieldtune")


def readable(config: Config, models: RunModel, rows: Rows) -> Rows:
    """The rows without those whose pictures or films cannot be read, which are named and counted as left out.

    What is kept of films is made here, so that no system waits for it.
    """
    if not any(row.media for row in rows.encoded):
        return rows
    name = "base" if config.evaluation.base else "tuned"  # the one that is asked first: it is loaded only once
    with models.system(name) as model, keeping_media(config, model, models.encoder.reader) as kept:
        if kept is None:
            return without_broken([rows], "reading what is shown")[0]
        return kept.filled([rows], Rank(), Accelerator.cpu)[0]  # towers look where the model is


def moments_of(model: Any, kept: KeptMedia | None, rows: Rows) -> dict[int, Moments]:
    """The frames that a model chooses of each film, by the number of its first place."""
    found: dict[int, Moments] = {}
    for shown in media_of_rows([rows]):
        try:
            moments = chosen_frames(model, kept, shown)
        except MediaError as error:  # it was read a moment ago
            log.warning("the frames that were chosen are not known: %s", error)
            continue
        if moments is not None:
            found[shown.first] = moments
    return found


def media_lines(example: Example, row: Encoded, moments: Mapping[int, Moments]) -> list[dict[str, Any]]:
    """A row's media for `predictions.jsonl`, in order."""
    lines = []
    for media, shown in zip(example.media, row.media, strict=False):
        line: dict[str, Any] = {"type": media.kind, "path": media.path}
        if shown.first in moments:
            chosen = moments[shown.first]
            line |= {"frames": list(chosen.frames), "seconds": [round(second, 3) for second in chosen.seconds]}
        lines.append(line)
    return lines
