"""Rows of a frame: which technique it shows, and, where its description says so, what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fieldtune.records import Example, Media, Message, RecordError, file_sha256
from fieldtune.tasks.judo.frames import Frame
from fieldtune.tasks.judo.vocabulary import NOTHING, Vocabulary

SYSTEM = "You are a judo coach. You look at one frame of a video."
TECHNIQUE_QUESTION = f"Which judo technique does the frame show? Answer with its name alone, or with '{NOTHING}'."
SEVERITIES = ("minor", "moderate", "critical")

# What an answer to the question about errors is.
ERRORS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "error_type": {"type": "string"},
                    "severity": {"enum": list(SEVERITIES)},
                    "description": {"type": "string"},
                },
                "required": ["error_type", "severity", "description"],
                "additionalProperties": False,
            },
        },
        "correct_aspects": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["errors", "correct_aspects"],
    "additionalProperties": False,
}


def technique_prompt(picture: Media) -> tuple[Message, ...]:
    """The turns that ask for a technique."""
    return (Message("system", (SYSTEM,)), Message("user", (picture, TECHNIQUE_QUESTION)))


def errors_prompt(picture: Media, technique: str) -> tuple[Message, ...]:
    """The turns that ask what is wrong with a technique. They begin as those that ask for it: one look serves both."""
    question = (
        f"The frame shows {technique}. What is wrong with it, and what is right? Answer in JSON: "
        '{"errors": [{"error_type", "severity", "description"}], "correct_aspects": []}, severity one of '
        f"{', '.join(SEVERITIES)}; no errors if nothing is wrong."
    )
    return (Message("system", (SYSTEM,)), Message("user", (picture, question)))


def rows_of(frame: Frame, known: Vocabulary) -> Iterator[Example]:
    """One row, or two where the description says what is wrong; `RecordError` for a description that cannot be used."""
    errors = _errors(frame.said)
    if errors is not None and frame.technique == NOTHING:
        raise RecordError(f"'errors' are given for {NOTHING}; leave them out")
    picture = Media("image", str(frame.path.resolve()), file_sha256(frame.path))
    group, source = frame.group or frame.name, "judo"
    facts = {
        "technique": frame.technique,
        "category": known.categories.get(frame.technique, "other"),
        "frame": frame.name,
    }
    messages = (*technique_prompt(picture), Message("assistant", (frame.technique,)))
    yield Example(frame.name, messages, source, group, {"kind": "technique", **facts})
    if errors is None:
        return
    answer = json.dumps(errors, ensure_ascii=False)
    messages = (*errors_prompt(picture, frame.technique), Message("assistant", (answer,)))
    types = sorted({error["error_type"] for error in errors["errors"]})
    meta = {"kind": "errors", **facts, "error_types": types}
    yield Example(f"{frame.name}#errors", messages, source, group, meta)


def _errors(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """{errors, correct_aspects} of a description; None if it says nothing of errors."""
    if "errors" not in said:
        return None
    raw, aspects = said["errors"], said.get("correct_aspects", [])
    if not isinstance(raw, list) or not all(isinstance(item, Mapping) for item in raw):
        raise RecordError("'errors' must be a list of objects {error_type, severity, description}")
    if not isinstance(aspects, list) or not all(isinstance(item, str) for item in aspects):
        raise RecordError("'correct_aspects' must be a list of texts")
    return {"errors": [_error(item) for item in raw], "correct_aspects": aspects}


def _error(raw: Mapping[str, Any]) -> dict[str, str]:
    kind, severity, description = (raw.get(name) for name in ("error_type", "severity", "description"))
    if not isinstance(kind, str) or not error_key(kind) or not isinstance(description, str):
        raise RecordError("an error must have the texts 'error_type' and 'description'")
    if severity not in SEVERITIES:
        raise RecordError(f"severity {severity!r} is unknown; allowed: {', '.join(SEVERITIES)}")
    return {"error_type": error_key(kind), "severity": str(severity), "description": description}


def error_key(text: str) -> str:
    """The name of a kind of error in one spelling, as in entry_too_wide."""
    return "_".join(re.findall(r"[a-z0-9]+", text.casefold()))
