"""Rows of other people's files: chat JSON Lines, Alpaca JSON and CSV, read as `Example`.

- `.jsonl`, `.ndjson`: one object a line: chat, ShareGPT or Alpaca, decided by the keys of each row
- `.json`: one list of such objects (the Alpaca file)
- `.csv`: a header with `instruction,output` and perhaps `input`, `prompt,response` or `question,answer`

Chat rows are `{"messages": [{"role", "content"}]}`; ShareGPT rows are
`{"conversations": [{"from": "human|gpt|system", "value"}]}`. Every row may also carry `id`, `group` and `system`,
and a JSON row `meta`. A corrupt row becomes a `Rejected`; an error is only a file that cannot be read at all.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldtune.errors import UserError
from fieldtune.records import (
    ROLES,
    Example,
    Media,
    Message,
    RecordError,
    Rejected,
    dump_line,
    file_sha256,
    parse_messages,
)

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv")
PAIRS = (("instruction", "output"), ("prompt", "response"), ("question", "answer"))
SHAREGPT_ROLES = {role: role for role in ROLES} | {"human": "user", "gpt": "assistant"}
EXCERPT = 500  # characters of a rejected row that are kept


def read_rows(path: Path, source: str) -> Iterator[Example | Rejected]:
    """Every row of the file, in order: an `Example`, or a `Rejected` that says what is wrong with it.

    A row without an id gets `{source}-{row:06d}`; rows are counted from 1 and corrupt ones count, so that
    mending one renames no other. A row without a group is its own group. `Rejected.line` is the line of the
    file (for CSV the last line of the row), or the number of the element of a JSON list, which its reason
    calls "item N".

    Raises `UserError` for a missing or empty file, an unknown suffix, a `.json` file that is not a list in
    JSON and a CSV file without the columns (when the first row is asked for).
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise UserError(f"{path}: the suffix {suffix!r} is unknown; allowed: {allowed}; rename the file")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"{path}: {what}; give the path of a {suffix} file")
    if _is_blank(path):
        raise UserError(f"{path}: the file is empty; give a {suffix} file with at least one row")
    rows = _Rows(path, source)
    if suffix == ".csv":
        return _read_csv(path, rows)
    if suffix == ".json":
        return _read_list(_load_list(path), rows)
    return _read_lines(path, rows)


def _is_blank(path: Path) -> bool:
    with path.open("rb") as file:
        return all(not line.removeprefix(b"\xef\xbb\xbf").strip() for line in file)


class _Rows:
    """Makes the rows of one file: numbers them, and refuses an id that the file has used before."""

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self.source = source
        self.count = 0
        self.seen: set[str] = set()

    def make(self, raw: Any, line: int, text: str, where: str = "") -> Example | Rejected:
        """One row from its decoded fields. line, text: its place and raw form. where: put before a reason."""
        self.count += 1
        try:
            example = with_found_media(
                example_of(raw, self.source, f"{self.source}-{self.count:06d}"), self.path.parent
            )
            if example.id in self.seen:
                raise RecordError(f"the id {example.id!r} is used by an earlier row")
        except RecordError as error:
            return self._rejected(line, f"{where}{error}", text)
        self.seen.add(example.id)
        return example

    def reject(self, line: int, reason: str, text: str) -> Rejected:
        """A row that could not even be decoded."""
        self.count += 1
        return self._rejected(line, reason, text)

    def _rejected(self, line: int, reason: str, text: str) -> Rejected:
        return Rejected(str(self.path), line, reason, text[:EXCERPT])


def _read_lines(path: Path, rows: _Rows) -> Iterator[Example | Rejected]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            data = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if not data:
                continue
            shown = data[: 4 * EXCERPT].decode("utf-8", "replace")
            try:
                raw = json.loads(data.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield rows.reject(number, f"not UTF-8 (byte {error.start + 1} of the line)", shown)
            except (ValueError, RecursionError) as error:
                yield rows.reject(number, f"not JSON ({_json_fault(error)})", shown)
            else:
                yield rows.make(raw, number, shown)


def _json_fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _load_list(path: Path) -> list[Any]:
    todo = "give a list of objects, or rename a JSON Lines file to .jsonl"
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        line = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}: not JSON ({line}{_json_fault(error)}); {todo}") from None
    if not isinstance(raw, list) or not raw:
        what = "an empty list" if raw == [] else f"JSON of type {type(raw).__name__}"
        raise UserError(f"{path}: holds {what}; {todo}")
    return raw


def _read_list(items: list[Any], rows: _Rows) -> Iterator[Example | Rejected]:
    for number, raw in enumerate(items, 1):
        yield rows.make(raw, number, json.dumps(raw), where=f"item {number}: ")


class _Lines:
    """Hands lines to the CSV reader and keeps those of the current row, which may hold line breaks."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        return line

    def take(self) -> str:
        text = "".join(self._taken).rstrip("\r\n")
        self._taken.clear()
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_csv(path: Path, rows: _Rows) -> Iterator[Example | Rejected]:
    # Bytes that are not UTF-8 come through as lone surrogates, so that only their own row is lost.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        header = _csv_header(path, reader)
        lines.take()
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield rows.reject(reader.line_num, f"not CSV ({error})", lines.take())
                continue
            text = lines.take()
            if not any(cell.strip() for cell in cells):
                continue
            if any("\udc80" <= char <= "\udcff" for cell in cells if not cell.isascii() for char in cell):
                yield rows.reject(reader.line_num, "not UTF-8", text)
            elif len(cells) != len(header):
                reason = f"{len(cells)} cells, but the header has {len(header)} (quote a cell with a comma)"
                yield rows.reject(reader.line_num, reason, text)
            else:
                yield rows.make(dict(zip(header, cells, strict=True)), reader.line_num, text)


def _csv_header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [cell.strip().lower() for cell in next((cells for cells in reader if any(cells)), [])]
    except csv.Error as error:
        todo = "save the file as comma-separated UTF-8"
        raise UserError(f"{path}: the header is not CSV ({error}); {todo}") from None
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: the header has {', '.join(twice)} twice; keep one column of each name")
    if not any(prompt in header and answer in header for prompt, answer in PAIRS):
        shown = ",".join(header)[:100].encode("utf-8", "replace").decode()
        allowed = "instruction,input,output (input may be left out), prompt,response or question,answer"
        raise UserError(f"{path}: the header is {shown!r}; allowed: {allowed}; rename the columns")
    return header


def example_of(raw: Any, source: str, default_id: str) -> Example:
    """An `Example` from the decoded fields of a row of any form; `RecordError` says what is wrong."""
    if not isinstance(raw, dict):
        raise RecordError(f"a row must be a JSON object, got {type(raw).__name__}")
    system = _text(raw, "system")
    messages = parse_messages(_turns(raw))
    if system and messages[0].role == "system":
        raise RecordError("both 'system' and a system message are given; keep one")
    if system:
        messages = (Message("system", (system,)), *messages)
    if any(message.role == "user" and not message.text.strip() and not message.media for message in messages):
        raise RecordError("a user message is empty: there is nothing to answer")
    meta = raw.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise RecordError(f"'meta' must be an object, got {type(meta).__name__}")
    name = _name(raw, "id") or default_id
    example = Example(name, messages, source, _name(raw, "group") or name, meta or {})
    try:
        dump_line(example.to_json()).encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError("holds half of a surrogate pair (\\ud800 to \\udfff)") from None
    return example


def with_found_media(example: Example, folder: Path) -> Example:
    """The example with whole paths of its pictures and films, which stand from `folder`, and their hashes.

    `RecordError` if a file is not there.
    """
    if not example.media:
        return example

    def found(part: str | Media) -> str | Media:
        if isinstance(part, str):
            return part
        path = (folder / part.path).resolve()
        if not path.is_file():
            raise RecordError(f"there is no file {path}")
        return replace(part, path=str(path), sha256=file_sha256(path))

    turns = (Message(message.role, tuple(found(part) for part in message.parts)) for message in example.messages)
    return replace(example, messages=tuple(turns))


def _turns(raw: Mapping[str, Any]) -> Any:
    """The turns of a row as {role, content}, whatever its form; `parse_messages` checks them."""
    if "messages" in raw:
        return raw["messages"]
    if "conversations" in raw:
        return _sharegpt_turns(raw["conversations"])
    for prompt_key, answer_key in PAIRS:
        if prompt_key in raw and answer_key in raw:
            break
    else:
        shown = ", ".join(sorted(str(key) for key in raw))[:100] or "no keys"
        allowed = "messages; conversations; " + "; ".join(" and ".join(pair) for pair in PAIRS)
        raise RecordError(f"unknown form (keys: {shown}); allowed: {allowed}")
    prompt, answer, extra = (_text(raw, key) for key in (prompt_key, answer_key, "input"))
    if not prompt.strip():
        raise RecordError(f"{prompt_key!r} is empty: there is nothing to answer")
    if not answer.strip():
        raise RecordError(f"{answer_key!r} is empty: there is nothing to learn")
    parts = [{"type": "text", "text": text} for text in (prompt, extra) if text.strip()]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


def _sharegpt_turns(raw: Any) -> list[dict[str, str]]:
    if not isinstance(raw, list) or not raw:
        raise RecordError("'conversations' must be a non-empty list of {from, value}")
    turns = []
    for number, item in enumerate(raw, 1):
        if not isinstance(item, dict) or not isinstance(item.get("value"), str):
            raise RecordError(f"turn {number} must be an object with 'from' and a text 'value'")
        speaker = item.get("from")
        if not isinstance(speaker, str) or speaker not in SHAREGPT_ROLES:
            raise RecordError(f"turn {number} is from {speaker!r}; allowed: {', '.join(SHAREGPT_ROLES)}")
        turns.append({"role": SHAREGPT_ROLES[speaker], "content": item["value"]})
    return turns


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(f"{key!r} must be a text, got {type(value).__name__}")
    return value if value.strip() else ""


def _name(raw: Mapping[str, Any], key: str) -> str:
    """An id or a group: a text or a whole number; empty where the row has none."""
    value = raw.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RecordError(f"{key!r} must be a text or a whole number, got {type(value).__name__}")
    return str(value).strip()
