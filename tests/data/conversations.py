"""Random conversations of awkward texts, tokenizers that differ in what pads, and what every encoded row must be."""

from __future__ import annotations

import random
from pathlib import Path

from transformers import AutoTokenizer

from fieldtune.data.encode import Encoder
from fieldtune.records import Message

# Blanks before marks, contractions, several bytes a character, joined and composed characters, bits of templates.
ATOMS = [
    "the", "Grip", " ", "  ", "\n", "\n\n", "\t", "\r\n", " .", " ,", "n't", " 's", "?", "!", "é", "e\u0301", "日本",
    "\U0001f469\u200d\U0001f467", "\u202e", "\u00a0", "\u2028", "\x00", "\x1b[31m", "<|im_", "|>", "im_end", "</s>",
    "### Response:\n", "### Instruction:", "12345", " 0.42", "İ", "ß", "\ufb01", "\ufffd", "\U0001d518", "[",
    "{{ x }}", "a",
]  # fmt: skip


def awkward_text(source: random.Random, atoms: int = 8) -> str:
    """Never blank: a row whose answer is blank is not a row."""
    while True:
        text = "".join(source.choice(ATOMS) for _ in range(source.randint(1, atoms)))
        if text.strip():
            return text


def conversation(source: random.Random, turns: int, system: str | None) -> tuple[Message, ...]:
    """system: the system message's text; None for no such message."""
    messages = [] if system is None else [Message("system", (system,))]
    for _ in range(turns):
        parts = tuple(awkward_text(source) for _ in range(source.randint(1, 2)))
        messages += [Message("user", parts), Message("assistant", (awkward_text(source),))]
    return tuple(messages)


def conversations(seed: int, each: int = 12) -> list[tuple[Message, ...]]:
    """`each` of 1 and 3 turns, with no system message, an empty one, and one of awkward text."""
    source = random.Random(seed)
    return [
        conversation(source, turns, system)
        for turns in (1, 3)
        for _ in range(each)
        for system in (None, "", awkward_text(source))
    ]


def with_tokens(folder: Path, target: Path, *, template: str | None = None, **tokens: str) -> Path:
    """A copy of a folder's tokenizer with other special tokens (pad_token=...) or another chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, text in tokens.items():
        setattr(tokenizer, name, text)
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(target)
    return target


def check_conversation(encoder: Encoder, messages: tuple[Message, ...], *, trimmed: bool = False) -> None:
    """Each turn's prompt in training is that of inference; trained are the answer and one end, and nothing else.

    trimmed: the template strips an answer of spaces around it.
    """
    row, end, after = encoder.row(messages), encoder.tokenizer.end_id, 0
    ids, trained = row.ids.tolist(), row.trained.tolist()
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = encoder.prompt(messages[:number])
        assert ids[: len(prompt)] == prompt
        assert not any(trained[after : len(prompt)])
        after = ids.index(end, len(prompt)) + 1
        assert all(trained[len(prompt) : after])
        answer = encoder.tokenizer.decode(ids[len(prompt) : after - 1])
        assert (answer.strip() == message.text.strip()) if trimmed else (answer == message.text)
    assert not any(trained[after:])
    assert row.ids[row.trained].tolist().count(end) == sum(message.role == "assistant" for message in messages)
