"""Layers that are computed again give the same gradients, trunk included, and keep less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fieldtune.config import Packing
from fieldtune.data.packing import pack_window
from fieldtune.errors import UserError
from fieldtune.models.ledger import counting
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.recompute import recompute_layers
from fieldtune.training.window import backward_window
from tests.models.tiny import lora_gpt2, lora_llama, rows_alike, tied_llama, tiny_gpt2
from tests.training.test_exact_loss import assert_equal, our_gradients

MAKES = [tiny_gpt2, tied_llama, lora_gpt2, lora_llama]


def again(make: Callable[[], Any]) -> Any:
    model = make()
    recompute_layers(model)
    return model.train()


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("micro", [2, 9])
def test_gradients_are_the_same(make: Callable[[], Any], packing: Packing, micro: int) -> None:
    rows = rows_alike()
    if packing is Packing.shared_prefix:
        assert (pack_window(rows, micro, share=True)["trunk"] is not None) == (micro == 2)
    wanted_loss, wanted = our_gradients(make(), rows, micro, packing)
    found_loss, found = our_gradients(again(make), rows, micro, packing)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-7)
    assert_equal(found, wanted, 1e-6)


def test_dropout_falls_as_it_fell() -> None:
    import torch

    losses = []
    for make in (lambda: tiny_gpt2(dropout=0.3).train(), lambda: again(lambda: tiny_gpt2(dropout=0.3))):
        model = make()
        torch.manual_seed(5)
        losses.append(our_gradients(model, rows_alike(), 4, Packing.none))
    assert_equal(losses[1][1], losses[0][1], 1e-6)


@pytest.mark.parametrize("micro", [3, 9])
def test_less_is_kept(micro: int) -> None:
    peaks = []
    for make in (lora_llama, lambda: again(lora_llama)):
        window = pack_window(rows_alike(), micro, share=True)
        network = LanguageModelLoss(make()).train()
        with counting(network.parameters()) as ledger:
            backward_window(network, window, lambda loss: loss.backward())
        peaks.append(max(peak.total for peak in ledger.peaks().values()))
    assert peaks[1] < 0.8 * peaks[0]


def test_an_architecture_that_cannot_is_told() -> None:
    model = tiny_gpt2()
    type(model).supports_gradient_checkpointing = False
    try:
        with pytest.raises(UserError, match=r"^trainer\.activation_checkpointing=true: .*; give false$"):
            recompute_layers(model)
    finally:
        type(model).supports_gradient_checkpointing = True
