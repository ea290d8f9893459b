"""`python -m fieldtune.tasks.fitness.documents docs` writes docs/fitness_schema.md, example files and JSON Schemas.

They are made of the schema and the generator, so that pages and code cannot tell different stories.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fieldtune.records import dump_line
from fieldtune.tasks.fitness import prompt, safety
from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.generate import generate
from fieldtune.tasks.fitness.schema import (
    FORM_BANDS,
    KINDS,
    Context,
    Part,
    PlanModification,
    WeeklyPlan,
    answer_schemas,
    json_schema,
)
from fieldtune.tasks.fitness.task import FILES

PAGE, FOLDER = "fitness_schema.md", "fitness_examples"
SEED, SHOWN = 2024, 6  # of the example files: seed and rows of each
TITLES: dict[type[Part], str] = {
    Context: "Context: what the coach is told",
    PlanModification: "Plan modification: the answer to USER FEEDBACK",
    WeeklyPlan: "Weekly plan: the answer to TRAINING GOALS and CONSTRAINTS",
}
INTRODUCTION = """\
# The fitness coach's data

This page is made by `python -m fieldtune.tasks.fitness.documents docs`. Do not edit it by hand. What it is for, and
what was decided: [fitness.md](fitness.md).

A path as `modifications[].date` is a key of each object in a list. No other keys are allowed. Numbers are JSON numbers,
never texts; NaN and infinity are refused. Dates are `2026-03-04`.
"""


def main(folder: Path) -> None:
    """Write the page and the example files below `folder`."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for path, text in documents():
        part = (folder / path).with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(folder / path)


def documents() -> Iterator[tuple[str, str]]:
    """(path below docs, text) of each document."""
    yield PAGE, page()
    for kind, schema in answer_schemas().items():
        yield f"{FOLDER}/{kind}.schema.json", json.dumps(schema, indent=2) + "\n"
    rows = list(generate(Data(count=200), SEED))
    for kind in KINDS:
        chosen = [row for row in rows if row.meta["kind"] == kind][:SHOWN]
        lines = (dump_line({"messages": [turn.to_json() for turn in row.messages]}) for row in chosen)
        yield f"{FOLDER}/{FILES[kind]}", "".join(lines)


def page() -> str:
    """docs/fitness_schema.md as text."""
    parts = [INTRODUCTION]
    for part, title in TITLES.items():
        rows = [f"| `{path}` | {kind} | {needed} | {about} |" for path, kind, needed, about in _keys(json_schema(part))]
        parts.append("\n".join([f"## {title}\n", "| key | type | needed | meaning |", "|---|---|---|---|", *rows, ""]))
    bands = [f"- below {limit:g}: `{name}`" for limit, name in FORM_BANDS]
    parts.append(
        "\n".join(
            [
                "## Form\n",
                "`form_status` is the band of `form_tsb`:\n",
                *bands,
                "- else: `detraining`",
                "- not known: `unknown`\n",
            ]
        )
    )
    parts.append("## Safety rules\n\n" + _indented(_rules_of_safety()))
    parts.append("## The system text\n\nEvery prompt begins with it. It is made of the schema.\n")
    parts.append(_indented(prompt.system_prompt()))
    return "\n".join(parts)


def _rules_of_safety() -> str:
    assert safety.__doc__ is not None
    return safety.__doc__.partition("its name:\n")[2].strip("\n").replace("\n    ", "\n").strip()


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())


def _keys(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(path, type and bounds, yes or no, meaning) of every key of an inlined JSON Schema."""
    for name, item in schema.get("properties", {}).items():
        inner, many = _present(item), f"{path}{name}"
        about = item.get("description") or inner.get("description", "")
        yield many, _kind(inner), "yes" if name in schema.get("required", []) else "no", about
        if inner.get("type") == "array":
            inner, many = inner["items"], many + "[]"
        yield from _keys(inner, many + ".")


def _present(item: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may be null, when it is not."""
    return next((choice for choice in item.get("anyOf", ()) if choice.get("type") != "null"), item)


def _kind(item: dict[str, Any]) -> str:
    if "enum" in item:
        return ", ".join(f"`{value}`" for value in item["enum"])
    kind = {"integer": "whole number", "number": "number", "string": "text", "array": "list"}.get(
        item["type"], "object"
    )
    if item.get("format") == "date":
        return "date"
    low, high = (
        next((item[name] for name in names if name in item), None)
        for names in (
            ("minimum", "exclusiveMinimum", "minLength", "minItems"),
            ("maximum", "maxLength", "maxItems"),
        )
    )
    unit = {"text": " characters", "list": " items"}.get(kind, "")
    if high is None:
        return kind
    return f"{kind}, {json.dumps(low or 0)} to {json.dumps(high)}{unit}"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
