"""Label files with films of a few frames: what is in them matters to nobody here."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldtune.records import Example, Rejected
from fieldtune.tasks.qved.config import Data
from fieldtune.tasks.qved.task import TASK
from tests.sources.films import write_film


def entry(number: int, label: str = "squat - shallow depth", **more: Any) -> dict[str, Any]:
    """One in QEVD's own spelling, in which no file name says anything."""
    return {"video_path": f"./{number:08d}.mp4", "labels": [label], **more}


def film(path: Path) -> Path:
    """A file of its own content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_film(path, zlib.crc32(str(path).encode()).to_bytes(4, "big"), height=16, width=32)


def labels(folder: Path, entries: Any, name: str = "fine_grained_labels.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def read(path: Path, seed: int = 1337, **more: Any) -> tuple[list[Example], list[Rejected]]:
    """The examples of a label file and what was refused."""
    found: Sequence[Example | Rejected] = list(TASK.examples(Data(labels=str(path), **more), seed))
    return (
        [item for item in found if isinstance(item, Example)],
        [item for item in found if isinstance(item, Rejected)],
    )
