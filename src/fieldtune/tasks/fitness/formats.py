"""The JSON schemas that a program may hold an answer to, by kind of answer."""

from __future__ import annotations

from typing import Any

from fieldtune.tasks.fitness.schema import answer_schemas


def schemas() -> dict[str, dict[str, Any]]:
    """{kind of answer: JSON Schema without references}."""
    return answer_schemas()
