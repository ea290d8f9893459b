"""The validator of coach data: JSON text or decoded JSON against the schema and the cross-field rules.

Every problem says the field, what was given and what is allowed. The layers are told apart, for a schema can be kept
while a sum is wrong: `json`, `schema`, `rules`; what is unsafe is told by `safety`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fieldtune.sources.json_text import NotJson, strict_json
from fieldtune.tasks.fitness import rules
from fieldtune.tasks.fitness.schema import ANSWERS, Context, Part, PlanModification, WeeklyPlan

P = TypeVar("P", bound=Part)
LONGEST = 100_000  # characters of an answer that is read
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """layer: json | schema | rules | safety. field: a path as `modifications[0].date`; empty: the whole."""

    layer: str
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text


def read_answer(text: str) -> tuple[Any, tuple[str, ...]]:
    """The JSON object in a model's words, and what had to be mended: fence, words around it, trailing comma.

    NotJson if there is none. An answer without mends is JSON as it stands.
    """
    try:
        return strict_json(text.strip(), LONGEST), ()
    except NotJson as error:
        first = error
    mends = []
    fenced = _FENCE.search(text[:LONGEST])
    if fenced:
        text = fenced[1]
        mends.append("a code fence")
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise NotJson(f"no JSON object in the answer ({first})")
    body = text[start : end + 1]
    if body != text.strip() and not fenced:
        mends.append("words around it")
    without = _TRAILING_COMMA.sub(lambda match: match[1] or "", body)
    if without != body:
        mends.append("a trailing comma")
    return strict_json(without, LONGEST), tuple(mends)


def check_answer(kind: str, value: Any, context: Context | None = None) -> list[Problem]:
    """What is wrong with the decoded answer of a kind; with the context also what disagrees with the plan."""
    parsed, problems = parse_part(ANSWERS[kind], value)
    if parsed is None:
        return problems
    if isinstance(parsed, PlanModification):
        found = rules.plan_modification(parsed, context)
    else:
        assert isinstance(parsed, WeeklyPlan)
        found = rules.weekly_plan(parsed, context)
    return [Problem("rules", field, text) for field, text in found]


def check_context(value: Any) -> list[Problem]:
    """What is wrong with a decoded context."""
    parsed, problems = parse_part(Context, value)
    if parsed is None:
        return problems
    return [Problem("rules", field, text) for field, text in rules.context(parsed)]


def parse_part(part: type[P], value: Any) -> tuple[P | None, list[Problem]]:
    """Decoded JSON as a part of the schema, or None and every problem of its shape and bounds."""
    if not isinstance(value, Mapping):
        return None, [Problem("schema", "", f"given {_shown(value)}; allowed: a JSON object")]
    try:
        return part.model_validate_json(json.dumps(value)), []
    except ValidationError as error:
        return None, [Problem("schema", _path(item["loc"]), _words(item)) for item in error.errors()]


def _path(place: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _words(error: ErrorDetails) -> str:
    """given ..., allowed ... of one of pydantic's errors."""
    kind, limits = error["type"], error.get("ctx", {})
    given = f"given {_shown(error['input'])}"
    if kind == "missing":
        return "given nothing; allowed: this key is needed"
    if kind == "extra_forbidden":
        return f"{given}; allowed: no key of this name"
    allowed = {
        "greater_than_equal": "{ge} or more",
        "greater_than": "more than {gt}",
        "less_than_equal": "{le} or less",
        "less_than": "less than {lt}",
        "literal_error": "{expected}",
        "string_too_short": "at least {min_length} character",
        "string_too_long": "at most {max_length} characters",
        "too_long": "at most {max_length} items",
        "too_short": "at least {min_length} item",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "string_type": "a text",
        "list_type": "a list",
        "model_type": "an object",
        "dict_type": "an object",
        "date_from_datetime_parsing": "a date as 2026-03-04",
        "date_parsing": "a date as 2026-03-04",
        "date_type": "a date as 2026-03-04",
    }.get(kind)
    return f"{given}; allowed: {allowed.format(**limits) if allowed else error['msg']}"


def _shown(value: Any) -> str:
    text = " ".join(json.dumps(value, ensure_ascii=True, default=str).split())
    return text if len(text) <= 60 else text[:57] + "..."
