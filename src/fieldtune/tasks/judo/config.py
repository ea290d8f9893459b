"""The data section of `data=judo`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fieldtune.config import DataConfig


@dataclass(kw_only=True, slots=True)
class Data(DataConfig):
    """Frames with the names of the techniques that they show."""

    task: str = "judo"
    frames: str = MISSING  # folder of PNG and JPEG files, by technique or with descriptions (docs/judo.md)
    techniques: list[str] = field(default_factory=list)  # names that are known beside the Kodokan's 100
