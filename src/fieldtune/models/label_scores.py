"""How probable a model finds each of a few labels as the answer to a prompt, by its own token probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fieldtune.config import Packing
from fieldtune.data.encode import Encoded, Encoder
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.scoring import row_losses
from fieldtune.records import Message


def label_row(encoder: Encoder, prompt: Sequence[Message], label: str) -> Encoded:
    """A prompt with a label as its answer; trained are the label's tokens and the end token, and nothing before."""
    return _answered(encoder, prompt, label, len(encoder.prompt(prompt)))


def _answered(encoder: Encoder, prompt: Sequence[Message], label: str, before: int) -> Encoded:
    row = encoder.row((*prompt, Message("assistant", (label,))))
    trained = row.trained.copy()
    trained[:before] = False  # answers of earlier turns are part of the prompt
    return replace(row, trained=trained)


def label_logs(
    network: LanguageModelLoss,
    encoder: Encoder,
    prompts: Sequence[Sequence[Message]],
    labels: Sequence[str],
    packing: Packing = Packing.shared_prefix,
    on_prompt: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """log P(label and end token | prompt) in nats [prompts, labels], one pass a prompt.

    With `Packing.shared_prefix` the prompt, and what labels begin with alike, is computed once for all labels.

    The softmax of a row is each label's probability, given that the answer is one of the labels: the end token makes
    them answers that exclude each other ("o-goshi" is not the beginning of another), so their probabilities add up, and
    their sum, exp of the logs, is the share of all answers that are a label at all. Dividing by the number of tokens
    would undo that, so there is no such variant: a label of many tokens is not put at a disadvantage once the model has
    learned it, as all tokens after its first distinct one are then all but certain.
    """
    found = np.zeros((len(prompts), len(labels)))
    for number, prompt in enumerate(prompts):
        before = len(encoder.prompt(prompt))
        rows = [_answered(encoder, prompt, label, before) for label in labels]
        losses = row_losses(network, rows, encoder.tokenizer.pad_id, len(rows), packing)
        found[number] = [-loss for loss, _ in losses]
        on_prompt()
    return found
