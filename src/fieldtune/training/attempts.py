"""How many optimizer steps a run really took: a line an attempt, kept up to date through any kind of end."""

from __future__ import annotations

import json
import os
from pathlib import Path

ATTEMPTS = "attempts.jsonl"
WIDTH = 12  # of a step number: the last one of a line is overwritten in place


class Attempts:
    """`attempts.jsonl` of a run: `{"from": steps done before, "to": last step begun}` for each start of its training.

    A step counts when it begins, so a step that was cut off counts too.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ATTEMPTS
        self._file: int | None = None
        self._place = 0

    def begin(self, step: int) -> None:
        """A new attempt that goes on after `step` optimizer steps."""
        lines = self._lines()
        known = "".join(_line(line["from"], line["to"]) for line in lines)
        text = known + _line(step, step)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.pwrite(self._file, text.encode(), 0)
        os.ftruncate(self._file, len(text))  # what a power cut left of a last line
        self._place = len(text) - len("}\n") - WIDTH

    def step(self, step: int) -> None:
        """Step number `step` (from 1) begins."""
        assert self._file is not None, "begin() comes first"
        os.pwrite(self._file, f"{step:>{WIDTH}}".encode(), self._place)

    def end(self) -> None:
        """No more steps in this process."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def facts(self) -> dict[str, int]:
        """Attempts, and optimizer steps that were begun in all of them."""
        lines = self._lines()
        return {"attempts": len(lines), "executed": sum(line["to"] - line["from"] for line in lines)}

    def _lines(self) -> list[dict[str, int]]:
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found


def _line(first: int, last: int) -> str:
    return f'{{"from": {first}, "to": {last:>{WIDTH}}}}\n'
