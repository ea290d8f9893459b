"""All examples of a data set on disk, readable by row number: memory holds an offset a row, whatever the rows hold."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from fieldtune.records import Example, dump_line, example_from_json


class Pool:
    """Rows appended to a file; `raw` and `example` read one back. A context manager: the file is closed at its end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._offsets = array("q")
        self._end = 0

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, example: Example) -> None:
        """Append a row."""
        line = dump_line(example.to_json()).encode()
        self._offsets.append(self._end)
        self._end += self._file.write(line)

    def raw(self, row: int) -> bytes:
        """The line of a row, newline included."""
        self._file.seek(self._offsets[row])
        return self._file.readline()

    def example(self, row: int) -> Example:
        """A row."""
        return example_from_json(json.loads(self.raw(row)))

    def write(self, path: Path, rows: Iterable[int]) -> int:
        """Write rows to a JSON Lines file, in the order given; returns their number."""
        count = 0
        with path.open("wb") as file:
            for row in rows:
                file.write(self.raw(row))
                count += 1
        return count

    def values(self, rows: Iterable[int], key: str) -> Iterator[Any]:
        """A value of each row's meta, or of the row itself (`source`)."""
        for row in rows:
            raw = json.loads(self.raw(row))
            yield raw["meta"].get(key, raw.get(key))
