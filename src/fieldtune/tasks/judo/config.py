"""The data section of `data=judo` and `data=judo_stills`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from fieldtune.config import DataConfig


@dataclass(kw_only=True, slots=True)
class Data(DataConfig):
    """Frames with the names of the techniques that they show, read or rendered."""

    task: str = "judo"
    frames: str | None = None  # folder of PNG and JPEG files, by technique or with descriptions (docs/judo.md)
    techniques: list[str] = field(default_factory=list)  # names that are known beside the Kodokan's 100
    count: int | None = None  # stills to render, in place of data.frames; null: none
    stills: str | None = None  # folder that rendered stills are written to

    def problems(self) -> list[str]:
        """Frames are read or rendered."""
        found = []
        if self.frames is None and self.count is None:
            found.append("data=judo needs data.frames=FOLDER (docs/judo.md); data=judo_stills renders stills")
        if self.frames is not None and self.count is not None:
            found.append(
                f"data.frames={self.frames} with data.count={self.count}: frames are read or rendered; give one"
            )
        if self.count is not None and self.stills is None:
            found.append(f"data.count={self.count} needs data.stills=FOLDER, where the stills are written")
        if self.count is not None and find_spec("PIL") is None:
            found.append(f"data.count={self.count} needs the package pillow; pip install 'fieldtune[video]'")
        return found
