"""The data section of `data=jsonl`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fieldtune.config import DataConfig


@dataclass(kw_only=True, slots=True)
class Data(DataConfig):
    """Rows from a file."""

    task: str = "jsonl"
    path: str = MISSING  # .jsonl, .json or .csv
    classes: list[str] = field(default_factory=list)  # the answers there are, if each is one of a few; empty: free text
