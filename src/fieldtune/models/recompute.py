"""Activation checkpointing: a layer's activations are dropped and computed again in the backward pass."""

from __future__ import annotations

import warnings
from typing import Any

from fieldtune.errors import UserError
from fieldtune.models.loss import unwrapped


def recompute_layers(model: Any, *, same_dropout: bool = True) -> None:
    """Have each layer keep nothing but its input (arXiv 1604.06174), in place. While the model answers it does nothing.

    same_dropout: the state of the random numbers is kept too, so that dropout falls as it fell. `UserError` for an
    architecture that cannot.
    """
    # The other, reentrant, form would cut what a trunk's keys and values send back.
    how = {"use_reentrant": False, "preserve_rng_state": same_dropout}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its new name is not in all releases that we allow
        try:
            unwrapped(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"trainer.activation_checkpointing=true: {reason}; give false") from None
