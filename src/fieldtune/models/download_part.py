"""The bytes of a download so far, ``NAME.part``, and beside them ``NAME.part.json``: what the server said of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fieldtune.runs import write_text


@dataclass
class Facts:
    """What the server said of the bytes in the part; stored beside it, so that a later run can resume."""

    url: str
    total: int | None = None
    validator: str | None = None
    md5: str | None = None


class Part:
    """The bytes of ``target`` received so far and what is known of them."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._facts_path = target.with_name(target.name + ".part.json")
        self.facts = self._load()
        self.joined = self.facts is not None  # holds bytes of more than one response

    def _load(self) -> Facts | None:
        try:
            facts = Facts(**json.loads(self._facts_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            facts = None
        if facts is None or not self.path.exists() or (facts.total is not None and self.size > facts.total):
            self.discard()  # bytes of which nothing is known cannot be continued
            return None
        return facts

    @property
    def size(self) -> int:
        """Bytes received."""
        return self.path.stat().st_size if self.path.exists() else 0

    def remember(self, facts: Facts) -> None:
        """Keep what the server says, for a later run too."""
        self.facts = facts
        write_text(self._facts_path, json.dumps(asdict(facts)))

    def discard(self) -> None:
        """Remove the bytes and what is known of them."""
        self.facts, self.joined = None, False
        self._facts_path.unlink(missing_ok=True)
        if self.size:
            self.path.unlink()

    def resume_headers(self, url: str) -> dict[str, str]:
        """Headers that ask ``url`` for the rest; empty when the part has to be begun anew."""
        if self.facts is None or not self.size or self.facts.total is None:
            return {}
        headers = {"Range": f"bytes={self.size}-"}
        if url == self.facts.url:
            if self.facts.validator is None:
                return {}  # the server gives no means to tell whether the file is still the same
            headers["If-Range"] = self.facts.validator
        return headers
