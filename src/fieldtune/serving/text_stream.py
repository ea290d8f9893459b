"""Tokens to text as they come: whole letters only, and nothing of what may become a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class TextStream:
    """The text of one answer. stops: the answer ends before the first of these that it would contain."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, [stop for stop in stops if stop]
        self._ids: list[int] = []
        # Some tokens begin with a blank only after others, so a few are decoded again with each new one.
        self._first = self._taken = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """What is certain after one more token; it may be nothing."""
        self._ids.append(token)
        text = self._new_text()
        if text.endswith("\ufffd"):  # a letter of which bytes are still to come
            return ""
        self._first, self._taken = self._taken, len(self._ids)
        return self._let_out(text, keep=True)

    def end(self) -> str:
        """What was still held back when the answer ended."""
        return self._let_out(self._new_text(), keep=False)

    def _new_text(self) -> str:
        before = self._decode(self._ids[self._first : self._taken])
        return self._decode(self._ids[self._first :])[len(before) :]

    def _let_out(self, text: str, *, keep: bool) -> str:
        if self.stopped:
            return ""
        held = self._held + text
        places = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return held[: min(places)]
        kept = max((_overlap(held, stop) for stop in self._stops), default=0) if keep else 0
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept]


def _overlap(text: str, stop: str) -> int:
    """Letters at the end of a text with which a stop text begins."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
