"""A pickle with code in it, as a foreign file may be one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)
