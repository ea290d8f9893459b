"""Coach conversations from JSON Lines: every row is checked as a coach's answer before it is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fieldtune.records import Example, Message, Rejected
from fieldtune.sources.json_text import NotJson, strict_json
from fieldtune.sources.tabular import read_rows
from fieldtune.tasks.fitness import prompt, safety
from fieldtune.tasks.fitness.schema import ANSWERS, Context
from fieldtune.tasks.fitness.validation import Problem, check_answer, check_context, parse_part

SOURCE = "conversations"
SHOWN = 500  # characters of a refused row that are kept


def read_conversations(path: Path) -> Iterator[Example | Rejected]:
    """The rows of a file that are valid and safe, the others as `Rejected`; `UserError` if it cannot be read."""
    for number, row in enumerate(read_rows(path, SOURCE), 1):
        if isinstance(row, Rejected):
            yield row
            continue
        problems = check_conversation(row.messages)
        if problems:
            yield Rejected(str(path), number, "; ".join(map(str, problems[:3])), row.text[:SHOWN])
        else:
            kind = kind_of(row.messages)
            yield Example(row.id, row.messages, SOURCE, row.group, {"kind": kind or "other", **row.meta})


def kind_of(messages: tuple[Message, ...]) -> str | None:
    """The kind of a conversation with an athlete's context; None of any other conversation."""
    user = _first_user(messages)
    return None if user is None else prompt.kind_of(user.text)


def _first_user(messages: tuple[Message, ...]) -> Message | None:
    return next((turn for turn in messages if turn.role == "user"), None)


def check_conversation(messages: tuple[Message, ...]) -> list[Problem]:
    """What is wrong with a conversation: its context, its answer, and what the answer would do to the athlete.

    Of a conversation without a context only the words of its answers can be judged.
    """
    kind, user = kind_of(messages), _first_user(messages)
    words = "\n".join(prompt.words_of(turn.text) for turn in messages if turn.role == "user")
    if kind is None or user is None:
        return _in_answer(safety.check_text(messages[-1].text, words))
    try:
        value = strict_json(prompt.context_of(user.text) or "")
    except NotJson as error:
        return [Problem("json", "context", str(error))]
    told, _ = parse_part(Context, value)
    problems = [Problem(item.layer, _below("context", item.field), item.text) for item in check_context(value)]
    if kind == "coaching" or told is None:
        unsafe = safety.check_text(messages[-1].text, words) if kind == "coaching" else []
        return [*problems, *_in_answer(unsafe)]
    return [*problems, *_in_answer(check_reply(kind, messages[-1].text, told, words))]


def check_reply(kind: str, text: str, told: Context, words: str) -> list[Problem]:
    """What is wrong with an answer in JSON to a context: not JSON, not of the schema, against a rule, unsafe."""
    try:
        value = strict_json(text)
    except NotJson as error:
        return [Problem("json", "", str(error))]
    parsed, problems = parse_part(ANSWERS[kind], value)
    if parsed is None:
        return problems
    return [*check_answer(kind, value, told), *safety.check(parsed, told, words)]


def _in_answer(problems: list[Problem]) -> list[Problem]:
    return [Problem(item.layer, _below("answer", item.field), item.text) for item in problems]


def _below(root: str, field: str) -> str:
    return f"{root}.{field}" if field else root
