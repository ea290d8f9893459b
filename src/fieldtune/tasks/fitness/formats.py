"""The JSON schemas that a program may hold an answer to, by kind of answer."""

from __future__ import annotations

from typing import Any

from fieldtune.tasks.fitness.schema import ANSWERS, json_schema


def schemas() -> dict[str, dict[str, Any]]:
    """{kind of answer: JSON Schema without references}."""
    return {kind: json_schema(part) for kind, part in ANSWERS.items()}
