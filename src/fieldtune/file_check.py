"""`fieldtune validate FILE`: every form of data that is read or written, with file, line and field of what is wrong.

- .jsonl, .ndjson: chat, ShareGPT and Alpaca rows, our own data sets, and the tasks' own lines
- .json: a list of such rows, or one object of a task (a plan change, a weekly plan, an athlete's context)
- .csv: rows of questions and answers, or a training log
- .fit: an activity
- a data set folder: its three splits, and the sums that its manifest gives
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fieldtune import tasks
from fieldtune.datasets import open_dataset
from fieldtune.errors import UserError
from fieldtune.records import SPLITS, RecordError, Rejected
from fieldtune.sources.activities import is_log, read_fit, read_log
from fieldtune.sources.json_text import NotJson, line_of, strict_json, value_lines
from fieldtune.sources.tabular import example_of, read_rows

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".fit")
Told = tuple[int, str, str]  # line, field, text


@dataclass(slots=True)
class Report:
    """rows: what was looked at. problems: a line each, as `file:line: field: given ..., allowed ...`."""

    rows: int = 0
    problems: list[str] = field(default_factory=list)


def check_file(path: Path) -> Report:
    """What a file or a data set folder holds, and all that is wrong with it; `UserError` if it cannot be read."""
    if path.is_dir():
        return _dataset(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give one of {', '.join(SUFFIXES)}, or a data set folder")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: the suffix {suffix!r} is unknown; allowed: {', '.join(SUFFIXES)}")
    readers = {".csv": _csv, ".fit": _fit, ".json": _document}
    report = Report()
    for told in readers.get(suffix, _lines)(path):
        if told is None:
            report.rows += 1
        else:
            line, name, text = told
            report.problems.append(f"{path}:{line}: {f'{name}: ' if name else ''}{text}")
    if report.rows == 0 and not report.problems:
        report.problems.append(f"{path}:1: given no row; allowed: at least one")
    return report


def _dataset(path: Path) -> Report:
    dataset = open_dataset(path)
    if dataset is None:
        raise UserError(f"{path}: a folder without manifest.json; give a data set folder, or a file")
    whole = Report()
    for split in SPLITS:
        if dataset.rows[split]:
            part = check_file(dataset.split(split))
            whole.rows += part.rows
            whole.problems += part.problems
    try:
        dataset.verify()
    except UserError as error:
        whole.problems.append(f"{path / 'manifest.json'}:1: sha256: {error}")
    return whole


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None


def _lines(path: Path) -> Iterator[Told | None]:
    """None for each row, and what is wrong with it."""
    seen: set[str] = set()
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        yield None
        try:
            raw = strict_json(line)
        except NotJson as error:
            yield number, "", str(error)
            continue
        yield from ((number, name, text) for name, text in _row(raw, seen))


def _document(path: Path) -> Iterator[Told | None]:
    text = _text(path)
    try:
        raw = strict_json(text)
    except NotJson as error:
        yield error.line, "", str(error)
        return
    lines, seen = value_lines(text), set[str]()
    if not isinstance(raw, list):
        yield None
        yield from ((line_of(lines, name), name, words) for name, words in _row(raw, seen))
        return
    for number, item in enumerate(raw):
        yield None
        for name, words in _row(item, seen):
            place = f"[{number}].{name}" if name else f"[{number}]"
            yield line_of(lines, place), place, words


def _row(raw: Any, seen: set[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a row: by the task that knows it, else as a row of messages or of question and answer."""
    if not isinstance(raw, Mapping):
        yield "", f"given {type(raw).__name__}; allowed: a JSON object"
        return
    for problems in tasks.file_checks():
        found = problems(raw)
        if found is not None:
            yield from found
            break
    if found is None or "messages" in raw:
        try:
            name = example_of(raw, "", "").id
        except RecordError as error:
            yield "", str(error)
            return
        if name and name in seen:
            yield "id", f"given {name!r} again; allowed: an id of its own"
        seen.add(name)


def _csv(path: Path) -> Iterator[Told | None]:
    for item in read_log(path) if is_log(path) else read_rows(path, path.stem):
        yield None
        if isinstance(item, Rejected):
            yield item.line, "", item.reason


def _fit(path: Path) -> Iterator[Told | None]:
    yield None
    try:
        read_fit(path, path.stem)
    except UserError as error:
        if "needs the package" in str(error):
            raise
        yield 1, "", str(error).removeprefix(f"{path}: ")
