"""What a data set looks like before anything is trained on it: an HTML page, and plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.pages import render, write_page
from fieldtune.records import Example, Media

Counts = Mapping[str, Mapping[str, int]]

MOST_ROWS = 30  # values of one fact that the page shows
MOST_LINES = 12  # values of one fact that a terminal shows
MOST_TEXT_LINES = 12  # lines of one turn that a terminal shows
NARROWEST = 40  # columns; a narrower terminal wraps


def write_preview(
    path: Path, title: str, examples: Sequence[Example], counts: Counts, facts: Mapping[str, str]
) -> Path:
    """Write the preview page; returns `path`.

    counts: rows by value for each fact, as in {"split": {"train": 340, "val": 40}}. facts: what stands under the
    title. All `examples` given are shown, long texts folded.
    """
    html = render(
        "preview.html.j2",
        title=title,
        facts=list(facts.items()),
        tables=[_table(name, values) for name, values in counts.items() if values],
        examples=[_example(example) for example in examples],
    )
    return write_page(path, html)


def terminal_preview(examples: Sequence[Example], counts: Counts, width: int = 100) -> str:
    """The same as plain text of at most `width` columns (40 at least). Ends with a line break.

    Control characters of the texts are left out: they could move the cursor or color the terminal.
    """
    width = max(width, NARROWEST)
    lines: list[str] = []
    for name, values in counts.items():
        if values:
            lines += [name, *_bars(values, width), ""]
    for example in examples:
        facts = ", ".join(f"{key}: {value}" for key, value in example.meta.items())
        lines.append(_fit(f"--- {example.id}  {facts}", width))
        for message in example.messages:
            lines += [message.role + ":", *_wrapped(message.text, width)]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(name: str, values: Mapping[str, int]) -> dict[str, Any]:
    total, most = sum(values.values()) or 1, max(values.values()) or 1
    rows = [
        {"name": value, "count": count, "width": count / most, "share": f"{count / total:.0%}"}
        for value, count in list(values.items())[:MOST_ROWS]
    ]
    hidden = list(values.values())[MOST_ROWS:]
    left_out = f"and {len(hidden):,} more values with {sum(hidden):,} rows" if hidden else ""
    return {"title": name.replace("_", " ").capitalize(), "rows": rows, "left_out": left_out}


def _example(example: Example) -> dict[str, Any]:
    turns = [
        {"role": message.role, "parts": [_part_text(part) for part in message.parts if part]}
        for message in example.messages
    ]
    return {"id": example.id, "meta": list(example.meta.items()), "turns": turns}


def _part_text(part: str | Media) -> str:
    return part if isinstance(part, str) else f"[{part.kind}: {part.path}]"


def _bars(values: Mapping[str, int], width: int) -> list[str]:
    shown = list(values.items())[:MOST_LINES]
    most = max(values.values()) or 1
    names = [_fit(_printable(value), width // 3) for value, _ in shown]
    column = max(len(name) for name in names)
    digits = max(len(f"{count:,}") for _, count in shown)
    room = width - column - digits - 6
    lines = [
        f"  {name:<{column}}  {count:>{digits},}  {'#' * round(room * count / most)}".rstrip()
        for name, (_, count) in zip(names, shown, strict=True)
    ]
    if hidden := list(values.values())[MOST_LINES:]:
        lines.append(f"  and {len(hidden):,} more values with {sum(hidden):,} rows")
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in _printable(text).split("\n"):
        lines += textwrap.wrap(paragraph, width - 4) or [""]
    hidden = len(lines) - MOST_TEXT_LINES
    if hidden > 1:  # one hidden line would take as much room as its notice
        lines = [*lines[:MOST_TEXT_LINES], f"({hidden} more lines)"]
    return [f"    {line}".rstrip() for line in lines]


def _fit(text: str, width: int) -> str:
    text = _printable(text).replace("\n", " ").rstrip()
    return text if len(text) <= width else text[: width - 3] + "..."


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable() or char == "\n")
