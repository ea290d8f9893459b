"""Answers and losses of a model on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fieldtune.config import Packing
from fieldtune.data.encode import Encoder
from fieldtune.data.load import Rows
from fieldtune.models.generate import Answer, Sampling, generate
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.scoring import row_losses
from fieldtune.progress import Progress


@dataclass(frozen=True, slots=True)
class Predictions:
    """losses: (sum in nats, supervised tokens) a row; answers: one a row."""

    losses: list[tuple[float, int]]
    answers: list[Answer]


def predict(
    name: str, model: Any, encoder: Encoder, rows: Rows, batch_size: int, packing: Packing, sampling: Sampling
) -> Predictions:
    """What the model called `name` says to each row's prompt, and how likely it finds the reference."""
    progress = Progress(f"loss of the {name} model", len(rows.encoded))
    losses = row_losses(
        LanguageModelLoss(model),
        rows.encoded,
        encoder.tokenizer.pad_id,
        batch_size,
        packing,
        lambda count: progress.advance("", count),
    )
    prompts = [encoder.prompt(example.prompt) for example in rows.examples]
    return Predictions(losses, answers(f"answers of the {name} model", model, encoder, prompts, batch_size, sampling))


def answers(
    what: str, model: Any, encoder: Encoder, prompts: Sequence[Sequence[int]], batch_size: int, sampling: Sampling
) -> list[Answer]:
    """An answer to each prompt, in order; prompts of like length are answered together, with less padding."""
    progress = Progress(what, len(prompts))
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    found: dict[int, Answer] = {}
    for first in range(0, len(prompts), batch_size):
        numbers = by_length[first : first + batch_size]
        batch = generate(model, encoder.tokenizer, [prompts[number] for number in numbers], sampling)
        found.update(zip(numbers, batch, strict=True))
        progress.advance("", len(numbers))
    return [found[number] for number in range(len(prompts))]
