"""How far two forms of a model agree on the same rows: pure figures of their logits and answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldtune.errors import UserError
from fieldtune.export.options import Bounds
from fieldtune.models.exported import Said


@dataclass(frozen=True, slots=True)
class Agreement:
    """rows, places: what was compared. difference: the largest of a logit. kl: mean divergence of the next token's
    distribution from the first form's, nats. agreement: share of places with the same likeliest token. answers: share
    of rows with the same greedy answer, letter by letter."""

    rows: int
    places: int
    difference: float
    kl: float
    agreement: float
    answers: float

    def facts(self) -> dict[str, Any]:
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }

    def line(self, what: str) -> str:
        return (
            f"{what}: largest logit difference {self.difference:.2g}, divergence {self.kl:.2g} nats, the same "
            f"likeliest token at {self.agreement:.1%} of {self.places:,} places, the same answer to "
            f"{self.answers:.0%} of {self.rows:,} rows"
        )


def agreement(wanted: Said, found: Said) -> Agreement:
    """Compare `found` with `wanted`; both said the same rows."""
    divergences, differences, same = [], [], []
    for first, second in zip(wanted.logits, found.logits, strict=True):
        width = min(first.shape[1], second.shape[1])  # a file may pad its vocabulary
        here, there = first[:, :width].astype(np.float64), second[:, :width].astype(np.float64)
        differences.append(float(np.abs(here - there).max()))
        same.extend((here.argmax(1) == there.argmax(1)).tolist())
        one, other = _log_shares(here), _log_shares(there)
        divergences.extend((np.exp(one) * (one - other)).sum(1).tolist())
    kl = sum(divergences) / len(divergences)
    equal = [a == b for a, b in zip(wanted.answers, found.answers, strict=True)]
    return Agreement(
        rows=len(equal),
        places=len(same),
        difference=max(differences),
        kl=0.0 if kl < 0 else kl,  # below 0 by rounding; NaN stays
        agreement=sum(same) / len(same),
        answers=sum(equal) / len(equal),
    )


def _log_shares(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    shares: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return shares


def must_be_near(what: str, found: Agreement, most: float) -> None:
    """`UserError` if a logit differs by more than `most`; NaN differs."""
    if not found.difference <= most:
        raise UserError(
            f"{what} differs from the tuned model: a logit by {found.difference:.3g}, allowed is {most:g}; "
            "nothing is published (max_difference= sets the bound)"
        )


def must_keep(what: str, found: Agreement, bounds: Bounds) -> None:
    """`UserError` if a rounded form says other things than its bounds allow."""
    if not (found.kl <= bounds.kl and found.agreement >= bounds.agreement):
        raise UserError(
            f"{what} says other things than the tuned model: divergence {found.kl:.3g} nats (at most {bounds.kl:g}), "
            f"the same likeliest token at {found.agreement:.1%} of places (at least {bounds.agreement:.1%}); "
            "nothing is published (another quantization= rounds less, max_kl= and min_agreement= set the bounds)"
        )
