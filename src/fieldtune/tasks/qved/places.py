"""Where the films of a label file lie: one place after the other, as people keep them."""

from __future__ import annotations

import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path

from fieldtune.records import RecordError
from fieldtune.tasks.qved.entries import plain

DATASET_DIR = "DATASET_DIR"  # environment variable: the folder of the data sets


class Places:
    """Finds a video path's file: as it is if absolute, else in data.videos, beside the labels, here, in `DATASET_DIR`.

    In data.videos a file of that name in any subfolder counts too, if there is only one.
    """

    def __init__(self, labels: Path, videos: Path | None) -> None:
        self.videos = videos
        roots = [videos, labels.parent, Path(), os.environ.get(DATASET_DIR)]
        self.roots = [Path(root) for root in roots if root is not None]

    @property
    def tried(self) -> str:
        """The folders that are looked in, for an error."""
        return ", ".join(dict.fromkeys(str(root.resolve()) for root in self.roots))

    def find(self, path: str) -> Path:
        """The absolute path of the file; RecordError if there is none, or two of that name."""
        wanted = Path(plain(path))
        for root in self.roots:
            if (root / wanted).is_file():
                return (root / wanted).resolve()
        found = self._by_name.get(wanted.name, []) if self.videos is not None else []
        if not found:
            raise RecordError(f"the video {path} is not there")
        if len(found) > 1:
            raise RecordError(f"the video {path} may be {found[0]} or {found[1]}; give its path in the label file")
        return found[0].resolve()

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Every file under data.videos by its name."""
        found: dict[str, list[Path]] = defaultdict(list)
        for folder, _, names in os.walk(self.videos or "."):
            for name in names:
                found[name].append(Path(folder) / name)
        return found
