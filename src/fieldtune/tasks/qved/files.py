"""What `fieldtune validate` knows of exercise films: the entries of a label file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldtune.records import RecordError
from fieldtune.tasks.qved.entries import check_entry


def problems(raw: Mapping[str, Any]) -> Sequence[tuple[str, str]] | None:
    """What is wrong with an entry; None for another object. Whether the film is there is prepare's business."""
    if "video_path" not in raw:
        return None
    try:
        check_entry(raw)
    except RecordError as error:
        return [("", str(error))]
    return []
