"""Answers and losses of a model on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fieldtune.config import Packing
from fieldtune.data.encode import Encoder
from fieldtune.data.load import Rows
from fieldtune.models.answering import Question, answer_all
from fieldtune.models.generate import Answer, Sampling
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.scoring import row_losses
from fieldtune.progress import Progress

Losses = list[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Predictions:
    """losses: (sum in nats, supervised tokens) a row; answers: one a row, None where none was asked for."""

    losses: Losses
    answers: list[Answer | None]

    def text(self, number: int) -> str | None:
        """The answer to a row."""
        answer = self.answers[number]
        return None if answer is None else answer.text


def measure(name: str, model: Any, encoder: Encoder, rows: Rows, batch_size: int, packing: Packing) -> Losses:
    """How likely the model called `name` finds each row's reference."""
    progress = Progress(f"loss of the {name} model", len(rows.encoded))
    return row_losses(
        LanguageModelLoss(model),
        rows.encoded,
        encoder.tokenizer.pad_id,
        batch_size,
        packing,
        lambda count: progress.advance("", count),
    )


def answers(
    what: str,
    model: Any,
    encoder: Encoder,
    rows: Rows,
    questions: dict[int, Any],
    batch_size: int,
    sampling: Sampling,
) -> list[Answer | None]:
    """What the model says to the rows whose numbers stand in `questions`, with the schema that an answer is held to.

    None for the others.
    """
    progress = Progress(what, len(questions))
    asked = [Question(encoder.prompt(rows.examples[number].prompt), schema) for number, schema in questions.items()]
    found = answer_all(model, encoder.tokenizer, asked, sampling, batch_size, progress.advance)
    by_row = dict(zip(questions, found, strict=True))
    return [by_row.get(number) for number in range(len(rows.examples))]


def questions(schemas: Sequence[Any], rows: int | None, *, constrained: bool, apart: bool) -> dict[int, Any]:
    """The first `rows` rows to ask (null: all), with the schema of each.

    constrained: an answer with a schema is held to it. apart: free answers are measured too, so what has no schema
    need not be asked twice.
    """
    chosen = range(len(schemas) if rows is None else min(rows, len(schemas)))
    if not constrained:
        return dict.fromkeys(chosen)
    return {number: schemas[number] for number in chosen if schemas[number] is not None or not apart}
