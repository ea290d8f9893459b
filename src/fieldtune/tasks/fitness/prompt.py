"""What a model is told: the system text with the schema's form and the rules, and the user's text. Also read back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

from fieldtune.records import Message
from fieldtune.tasks.fitness.schema import (
    FORM_BANDS,
    Context,
    Day,
    FormStatus,
    Intensity,
    Kind,
    Part,
    PlanModification,
    Sport,
    WeeklyPlan,
    json_schema,
)

CONTEXT, FEEDBACK, GOALS, CONSTRAINTS, QUESTION = (
    "ATHLETE CONTEXT:",
    "USER FEEDBACK:",
    "TRAINING GOALS:",
    "CONSTRAINTS:",
    "QUESTION:",
)
# Left out of the form in the prompt: it may be written, but a coach seldom needs it and it would double the text.
NOT_SHOWN = frozenset(
    ("steps", "description", "notes", "original_name", "recommendations_summary", "weekly_load_adjustment")
)
LISTS = {"SPORT": get_args(Sport), "LEVEL": get_args(Intensity), "DAY": get_args(Day), "FORM": get_args(FormStatus)}
_CONTEXT_LINE = re.compile(rf"^{re.escape(CONTEXT)}\n(?P<json>[^\n]*)", re.MULTILINE)


@cache
def system_prompt() -> str:
    """The text that all conversations share; made of the schema."""
    bands = ", ".join(f"below {limit:g} {name}" for limit, name in FORM_BANDS)
    return "\n".join(
        (
            "You are a careful training coach. Use only what the ATHLETE CONTEXT says.",
            f"Answer USER FEEDBACK with JSON only: {form_text(json_schema(PlanModification))}",
            f"Answer TRAINING GOALS with JSON only: {form_text(json_schema(WeeklyPlan))}",
            "; ".join(f"{name}: {'|'.join(values)}" for name, values in LISTS.items()),
            "Answer a QUESTION in one to three sentences.",
            f"Form: {bands}, else detraining. Overreached: skip the next workout. Very fatigued: half of it, easy. "
            "Tired: three quarters. More only when fresh or detraining, by a fifth. Illness: skip. Pain: an easy other "
            "sport. Chest pain or fainting: skip, see a doctor. No catching up. Rest has 0 minutes and TSS 0.",
        )
    )


def form_text(schema: dict[str, Any]) -> str:
    """A JSON Schema as a short form: {"key":type}; a key that may be left out ends with a question mark."""
    if "anyOf" in schema:
        return form_text(next(item for item in schema["anyOf"] if item.get("type") != "null"))
    if "enum" in schema:
        values = tuple(schema["enum"])
        return next((name for name, list_ in LISTS.items() if list_ == values), "|".join(values))
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        needed = schema.get("required", [])
        shown = {name: item for name, item in schema["properties"].items() if name not in NOT_SHOWN}
        parts = (f'"{name}{"" if name in needed else "?"}":{form_text(item)}' for name, item in shown.items())
        return "{" + ",".join(parts) + "}"
    if kind == "array":
        return f"[{form_text(schema['items'])}]"
    return "date" if schema.get("format") == "date" else {"integer": "int", "string": "text"}.get(str(kind), str(kind))


def context_json(told: Part) -> str:
    """A part as it stands in prompts and answers: one line, without what is not known."""
    return told.model_dump_json(by_alias=True, exclude_none=True)


def prompt(told: Context, blocks: Sequence[tuple[str, str]], *, system: bool = True) -> tuple[Message, ...]:
    """System and user message. blocks: (heading, text) after the context, as (QUESTION, "How is my form?")."""
    parts = (f"{CONTEXT}\n{context_json(told)}", *(f"{heading}\n{text}" for heading, text in blocks))
    turns = (Message("user", parts),)
    return (Message("system", (system_prompt(),)), *turns) if system else turns


def kind_of(text: str) -> Kind | None:
    """What a user's text asks for; None if it has no context or no known heading."""
    if _CONTEXT_LINE.search(text) is None:
        return None
    if re.search(rf"^{FEEDBACK}", text, re.MULTILINE):
        return "plan_modification"
    if re.search(rf"^{GOALS}", text, re.MULTILINE):
        return "weekly_plan"
    return "coaching" if re.search(rf"^{QUESTION}", text, re.MULTILINE) else None


def context_of(text: str) -> str | None:
    """The JSON line of the context in a user's text."""
    found = _CONTEXT_LINE.search(text)
    return found["json"] if found else None


def words_of(text: str) -> str:
    """What the athlete wrote: the user's text without the context."""
    return _CONTEXT_LINE.sub("", text).strip()
