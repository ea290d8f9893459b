"""Progress and time left, on a terminal as one line that is rewritten, elsewhere as a line now and then."""

from __future__ import annotations

import logging
import sys
import time

log = logging.getLogger("fieldtune")

SECONDS_BETWEEN_LINES = 15.0  # without a terminal
SECONDS_BETWEEN_REDRAWS = 0.2


class Progress:
    """Counts `total` units of work: `advance` after each, with what is worth seeing."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self._first = done
        self._started = time.monotonic()
        self._shown = self._started if not sys.stderr.isatty() else 0.0

    def advance(self, note: str = "", count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        wait = SECONDS_BETWEEN_REDRAWS if terminal else SECONDS_BETWEEN_LINES
        if self.done < self.total and now - self._shown < wait:
            return
        self._shown = now
        line = self.line(now - self._started, note)
        if not terminal:
            log.info("%s", line)
            return
        print(f"\r\x1b[2K{line}", end="\n" if self.done >= self.total else "", file=sys.stderr, flush=True)

    def line(self, seconds: float, note: str) -> str:
        """`training 12/41 (29 %), about 2 min left, loss 0.52`."""
        share = self.done / self.total if self.total else 1.0
        fresh = self.done - self._first
        text = f"{self.what} {self.done:,}/{self.total:,} ({share:.0%})"
        if self.done >= self.total:
            text += f", done in {duration(seconds)}"
        elif fresh:
            text += f", about {duration(seconds / fresh * (self.total - self.done))} left"
        return f"{text}, {note}" if note else text


def duration(seconds: float) -> str:
    """A time in words, as in `45 s`, `4 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
