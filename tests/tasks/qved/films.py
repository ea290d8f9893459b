"""Label files with films that are a few bytes: what is in them matters to nobody here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldtune.records import Example, Rejected
from fieldtune.tasks.qved.config import Data
from fieldtune.tasks.qved.task import TASK


def entry(number: int, label: str = "squat - shallow depth", **more: Any) -> dict[str, Any]:
    """One in QEVD's own spelling, in which no file name says anything."""
    return {"video_path": f"./{number:08d}.mp4", "labels": [label], **more}


def film(path: Path) -> Path:
    """A file of its own content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(str(path).encode())
    return path


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
