"""Answers to many prompts: several at a time, each place filled again when its answer ends; a common beginning once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fieldtune.data.trie import common_prefix
from fieldtune.models.constrained import Constraint
from fieldtune.models.decode import Chooser, Prompt, RaggedBatch, positions, vocabulary_width
from fieldtune.models.generate import Answer, Sampling
from fieldtune.models.tokenizer import Tokenizer

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """ids: the prompt. schema: a JSON schema that the answer is held to; None: it is free."""

    ids: Sequence[int]
    schema: Schema | None = None


@dataclass(eq=False, slots=True)
class _Row:
    """An answer on its way. number: of its question. limit: tokens at most."""

    number: int
    chooser: Chooser
    limit: int
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def goes_on(self, logits: Any, ends: frozenset[int]) -> bool:
        """Take the next token; whether another one follows."""
        token = self.chooser.pick(logits)
        if token in ends:
            self.ended = True
        else:
            self.tokens.append(token)
            self.ended = self.chooser.ended
        return not self.ended and len(self.tokens) < self.limit


def answer_all(
    model: Any,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    sampling: Sampling,
    slots: int,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """An answer to each question, in order; `slots` of them are decoded at a time. The model's mode is left as it was.

    Random draws are an answer's own, so it does not matter which ones run beside it. A prompt that fills the model's
    positions is a ValueError; a shorter room shortens the answer. `UserError` for a schema that cannot be used.
    """
    was_training = model.training
    model.eval()
    try:
        return _answer_all(model, tokenizer, questions, sampling, slots, on_answer)
    finally:
        model.train(was_training)


def _answer_all(
    model: Any,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    sampling: Sampling,
    slots: int,
    on_answer: Callable[[], None],
) -> list[Answer]:
    width, beginning = vocabulary_width(model), _beginning(model, questions)
    # The last in this list are the first to be asked: the longest, so that no long one is left to go on alone.
    waiting = sorted(range(len(questions)), key=lambda number: len(questions[number].ids))
    batch, running, found = RaggedBatch(model), list[_Row](), dict[int, Answer]()

    def settle(row: _Row, logits: Any) -> bool:
        """Whether the row stays; else its answer is found."""
        if row.goes_on(logits, tokenizer.stop_ids):
            return True
        found[row.number] = Answer(tokenizer.decode(row.tokens).strip(), len(row.tokens), row.ended)
        on_answer()
        return False

    while waiting or running:
        while waiting and len(running) < slots:
            number = waiting.pop()
            row = _row(model, tokenizer, number, questions[number], sampling, width)
            prompt = Prompt(questions[number].ids, after=beginning)
            if settle(row, prompt.advance(model, len(prompt.ids))):
                batch.join(prompt)
                running.append(row)
        if not running:
            break
        logits = batch.step([row.tokens[-1] for row in running])
        staying = [place for place, row in enumerate(running) if settle(row, logits[place])]
        batch.keep(staying)
        running = [running[place] for place in staying]
    return [found[number] for number in range(len(questions))]


def _row(model: Any, tokenizer: Tokenizer, number: int, question: Question, sampling: Sampling, width: int) -> _Row:
    room = positions(model) - len(question.ids)
    if room < 1:
        raise ValueError(f"a prompt fills the model's {positions(model)} positions")
    held = None if question.schema is None else Constraint(tokenizer, question.schema, width)
    chooser = Chooser(replace(sampling, seed=sampling.seed + number), held)
    return _Row(number, chooser, min(sampling.max_new_tokens, room))


def _beginning(model: Any, questions: Sequence[Question]) -> Prompt | None:
    """What all questions begin with, through the model; None if that is nothing. Each keeps a token of its own."""
    if len(questions) < 2:
        return None
    prompts = [list(question.ids) for question in questions]
    first, last = np.array(min(prompts)), np.array(max(prompts))  # in the order of their ids: all others are between
    common = min(common_prefix(first, last), min(map(len, prompts)) - 1)
    if common < 1:
        return None
    prompt = Prompt(prompts[0][:common])
    prompt.advance(model, common)
    return prompt
