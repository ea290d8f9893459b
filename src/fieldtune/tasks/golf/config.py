"""The data section of `data=golf`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fieldtune.config import DataConfig


class Form(Enum):
    """document: three sections. full: seven sections. short: three sections of a sentence or two."""

    document = "document"
    full = "full"
    short = "short"


@dataclass(kw_only=True, slots=True)
class Data(DataConfig):
    """Generated golf feedback."""

    task: str = "golf"
    count: int = 400  # rows to make
    form: Form = Form.document
    knowledge: str | None = None  # folder of Markdown; null: the one that comes with fieldtune
    feedback: str | None = None  # JSON Lines of users' feedback that joins the rows
