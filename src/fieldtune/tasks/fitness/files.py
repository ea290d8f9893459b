"""What `fieldtune validate` knows of coaching: conversations, plan changes, weekly plans, contexts, pairs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldtune.records import RecordError, parse_turns
from fieldtune.tasks.fitness import safety
from fieldtune.tasks.fitness.conversations import check_conversation, kind_of
from fieldtune.tasks.fitness.schema import ANSWERS, Context
from fieldtune.tasks.fitness.validation import Problem, check_answer, check_context, parse_part

_MARKS = {"plan_modification": {"modifications", "new_workouts"}, "weekly_plan": {"plan_summary", "workouts"}}
_WORDS = ("feedback", "goals", "constraints", "question")


def problems(raw: Mapping[str, Any]) -> Sequence[tuple[str, str]] | None:
    """What is wrong with an object of coaching data; None for another object.

    Known are {messages} with an athlete's context; a plan change; a weekly plan; a context; and {context, answer} with
    `feedback`, `goals`, `constraints` or `question` beside, which is checked for agreement and safety too.
    """
    if "messages" in raw:
        return _conversation(raw)
    if "context" in raw:
        return _pair(raw)
    if "current_metrics" in raw:
        return _said(check_context(raw))
    kind = _answer_kind(raw)
    return None if kind is None else _said(check_answer(kind, raw))


def _conversation(raw: Mapping[str, Any]) -> Sequence[tuple[str, str]] | None:
    try:
        messages = parse_turns(raw["messages"])
    except RecordError:
        return None  # no conversation at all: the general check of chat rows says why
    if kind_of(messages) is None or messages[-1].role != "assistant":
        return None
    return _said(check_conversation(messages))


def _pair(raw: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    told, _ = parse_part(Context, raw["context"])
    found = [(f"context.{item.field}", item.text) for item in check_context(raw["context"])]
    found += [(name, "given no text; allowed: a text") for name in _WORDS if not isinstance(raw.get(name, ""), str)]
    answer = raw.get("answer")
    if answer is None or told is None or found:
        return found
    kind = _answer_kind(answer) if isinstance(answer, Mapping) else None
    if kind is None:
        return [("answer", "given neither a plan change nor a weekly plan; allowed: an object of one of them")]
    parsed, problems = parse_part(ANSWERS[kind], answer)
    if parsed is not None:
        words = "\n".join(str(raw[name]) for name in _WORDS if name in raw)
        problems = [*check_answer(kind, answer, told), *safety.check(parsed, told, words)]
    return [(f"answer.{item.field}".removesuffix("."), item.text) for item in problems]


def _answer_kind(raw: Mapping[str, Any]) -> str | None:
    return next((kind for kind, marks in _MARKS.items() if marks & raw.keys()), None)


def _said(found: Sequence[Problem]) -> list[tuple[str, str]]:
    return [(item.field, item.text) for item in found]
