"""Whether a model can be packed exactly. What cannot be is refused, never packed approximately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fieldtune.config import Packing
from fieldtune.data.encode import Encoded
from fieldtune.data.media import plain_inputs
from fieldtune.errors import UserError
from fieldtune.models.looks import are_rounded
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.scoring import row_losses
from fieldtune.models.vision_parts import text_body

ADVICE = "give trainer.packing=none"
TRIED_TOKENS = 24  # of each of two rows
LARGEST_DIFFERENCE = 0.01  # nats a token; of another context it is far more, of rounding in fp32 far less
LARGEST_ROUNDED = 0.05  # the same where products are rounded to 16 bits


def must_pack_exactly(network: LanguageModelLoss, rows: Sequence[Encoded], context_length: int) -> None:
    """`UserError` unless rows in a pack get the losses that they get alone."""
    settings = unwrapped(network.model).config.get_text_config()
    name = type(unwrapped(network.model)).__name__
    window = getattr(settings, "sliding_window", None)
    if getattr(settings, "use_sliding_window", True) and window is not None and window < context_length:
        raise UserError(
            f"{name} sees only {window:,} tokens back, fewer than model.context_length={context_length:,}, which "
            f"packing does not do; {ADVICE} or model.context_length={window}"
        )
    body = text_body(unwrapped(network.model))
    if not getattr(body, "_supports_attention_backend", False) and settings.model_type != "gpt2":
        raise UserError(f"{name} does not let its attention be chosen, which packing needs; {ADVICE}")
    worst = _largest_difference(network, rows, Packing.rows, Packing.shared_prefix)
    if not worst <= _tolerance(network, rows):
        raise UserError(f"{name} gives other losses in a pack than alone (by {worst:.3g} nats a token); {ADVICE}")


def must_score_exactly(network: LanguageModelLoss, rows: Sequence[Encoded]) -> None:
    """`UserError` unless padded rows get the losses that the model itself gives them.

    Some families do something with the logits in their own forward, which the loss, that calls its parts, must know of.
    """
    worst = _largest_difference(network, rows, Packing.none)
    if not worst <= _tolerance(network, rows):
        name = type(unwrapped(network.model)).__name__
        raise UserError(f"{name} cannot be trained here: its losses would be wrong by {worst:.3g} nats a token")


def _tolerance(network: LanguageModelLoss, rows: Sequence[Encoded]) -> float:
    """Packed weights are multiplied in 16 bits, most of the time; kept looks may have been rounded to them."""
    seen = (one.reader.inputs([one]) for row in _chosen(rows) for one in row.media)
    rounded = getattr(unwrapped(network.model), "is_loaded_in_4bit", False) or any(map(are_rounded, seen))
    return LARGEST_ROUNDED if rounded else LARGEST_DIFFERENCE


def _chosen(rows: Sequence[Encoded]) -> list[Encoded]:
    """The first two rows; of those with pictures, if there are any."""
    return ([row for row in rows if row.media] or list(rows))[:2]


def _tried(row: Encoded) -> Encoded:
    """The row's first tokens, all of them trained but the places of pictures. A picture stays whole."""
    places = np.flatnonzero(row.ids < 0)
    count = TRIED_TOKENS + (int(places[-1]) + 1 if len(places) else 0)
    positions = None if row.positions is None else row.positions[:, :count]
    return Encoded(row.ids[:count], row.ids[:count] >= 0, positions)


def _ending_as(row: Encoded, other: Encoded) -> Encoded:
    """A copy of a row with another's last token."""
    return replace(row, ids=np.concatenate([row.ids[:-1], other.ids[-1:]]))


@torch.no_grad()
def _largest_difference(network: LanguageModelLoss, rows: Sequence[Encoded], *packings: Packing) -> float:
    """Between a token's loss in a pack and alone, by plain transformers code, of the beginnings of two rows."""
    rows = [_tried(row) for row in _chosen(rows)]
    was_training = network.training
    network.eval()
    try:
        model: Any = network.model
        device = next(model.parameters()).device
        # Once sharing their beginning, once not; the second row is also a copy that ends elsewhere.
        together = [*rows, _ending_as(rows[0], rows[-1])]
        differences = []
        for packing in packings:
            losses = row_losses(network, together, pad_id=0, batch_size=len(together), packing=packing)
            for row, (found, _) in zip(together, losses, strict=True):
                ids = torch.from_numpy(row.ids.astype(np.int64))[None]
                inputs = {name: value.to(device) for name, value in plain_inputs(ids).items()}
                trained = (ids[0, 1:] >= 0).nonzero()[:, 0].to(device)
                # A film has thousands of places, and logits of one are as wide as the vocabulary.
                only = {"logits_to_keep": trained} if row.media else {}
                logits = model(**inputs, use_cache=False, **only).logits[0]
                logits = logits.float() if only else logits[trained].float()
                labels = ids[0, 1:].to(device)[trained]
                alone = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
                differences.append(abs(float(alone) - found) / max(1, row.supervised))
        return float(np.max(differences))  # not a number if one of them is not
    finally:
        network.train(was_training)
