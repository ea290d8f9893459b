"""The contender `loop`: the golf document's training loop, a padded batch and cross-entropy over all its logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fieldtune.config import Precision
from fieldtune.data.encode import Encoded

from .job import Setting, Timings, by_length, padded_tokens

IGNORED = -100  # the label of a position that the loss does not count


def loop(setting: Setting) -> Timings:
    """Train by the padded loop; see `Setting`. Without an attention mask: rows are padded on the right."""
    model, trainer = setting.model, setting.config.trainer
    model.train()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=trainer.learning_rate,
        betas=(trainer.betas[0], trainer.betas[1]),
        weight_decay=trainer.weight_decay,
        fused=True,
    )

    def step(rows: Sequence[Encoded]) -> float:
        supervised, total = sum(row.supervised for row in rows), 0.0
        ordered = by_length(rows)
        for first in range(0, len(ordered), setting.micro_batch):
            ids, labels = padded(ordered[first : first + setting.micro_batch], setting.tokenizer.pad_id)
            with torch.autocast("cpu", torch.bfloat16, enabled=setting.config.hardware.precision is Precision.bf16):
                logits = model(input_ids=ids, use_cache=False).logits
            loss = functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
            )
            (loss / supervised).backward()
            total += float(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total / supervised

    timings = Timings()
    step([setting.warm_up])
    timings.start()
    for rows in setting.steps:
        timings.step(step(rows), padded_tokens(rows, setting.micro_batch))
    return timings


def padded(rows: Sequence[Encoded], pad_id: int) -> tuple[Tensor, Tensor]:
    """ids and labels [rows, longest], padded on the right; the label of a position is its own token."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id)
    labels = torch.full((len(rows), length), IGNORED)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.from_numpy(row.ids)
        labels[number, : len(row.ids)] = torch.tensor(own_labels(row))
    return ids, labels


def own_labels(row: Encoded) -> list[int]:
    """The row's ids where they are supervised, else `IGNORED`.

    A first token is predicted from nothing. Its label has to go, for transformers' Trainer counts it with a GPT-2.
    """
    labels = [token if trained else IGNORED for token, trained in zip(row.ids.tolist(), row.trained, strict=True)]
    return [IGNORED, *labels[1:]]
