"""What a model is said to count and to hold, against a model that is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from fieldtune.config import AdapterConfig, AdapterKind, Precision
from fieldtune.data.packing import pack_window
from fieldtune.models.adapters import adapt, parameter_counts
from fieldtune.models.ledger import counting
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.outline import counts, held_by, outline
from fieldtune.training.window import backward_window

from ..models.tiny import rows_alike, tied_llama, tiny_gpt2, tiny_llama

NONE = AdapterConfig(kind=AdapterKind.none)
LORA = AdapterConfig(kind=AdapterKind.lora, rank=4)
Make = Callable[[], Any]
MODELS: list[Make] = [tiny_gpt2, tiny_llama, tied_llama]
IDS = ["gpt2", "llama", "tied llama"]


def totals(held: dict[str, dict[str, int]]) -> dict[str, int]:
    return {phase: sum(parts.values()) for phase, parts in held.items()}


@pytest.mark.parametrize("make", MODELS, ids=IDS)
@pytest.mark.parametrize("adapter", [NONE, LORA], ids=["full", "lora"])
def test_an_outline_counts_as_the_model_does(make: Make, adapter: AdapterConfig) -> None:
    model = adapt(make(), adapter)
    found = counts(outline(model.config, adapter))
    assert (found.parameters, found.trainable) == parameter_counts(model)
    assert found == counts(model)
    assert all(parameter.is_meta for parameter in outline(model.config, adapter).parameters())


@pytest.mark.parametrize("make", MODELS, ids=IDS)
@pytest.mark.parametrize("adapter", [NONE, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("micro_batch_size", [3, 9])
def test_a_trace_without_memory_is_that_of_real_tensors(
    make: Make, adapter: AdapterConfig, micro_batch_size: int
) -> None:
    """The peak of living tensors over a whole optimizer step, with two layers: both count what is really allocated."""
    window = pack_window(rows_alike(), micro_batch_size, share=True)
    network = LanguageModelLoss(adapt(make(), adapter)).train()
    with counting(network.parameters()) as ledger:
        backward_window(network, window, lambda loss: loss.backward())
    real = max(peak.total for peak in ledger.peaks().values())
    found = max(totals(held_by(make().config, adapter, Precision.fp32, window)).values())
    assert found == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize("adapter", [NONE, LORA], ids=["full", "lora"])
def test_layers_are_extended_as_they_are(adapter: AdapterConfig) -> None:
    """Seven layers, from two and three, against seven real ones."""
    settings = tiny_llama().config
    settings.num_hidden_layers = 7
    window = pack_window(rows_alike(), 3, share=True)
    network = LanguageModelLoss(adapt(LlamaForCausalLM(settings), adapter)).train()
    with counting(network.parameters()) as ledger:
        backward_window(network, window, lambda loss: loss.backward())
    real = max(peak.total for peak in ledger.peaks().values())
    assert max(totals(held_by(settings, adapter, Precision.fp32, window)).values()) == pytest.approx(real, rel=0.06)


@pytest.mark.parametrize("adapter", [NONE, LORA], ids=["full", "lora"])
def test_half_precision_is_traced_as_it_is(adapter: AdapterConfig) -> None:
    window = pack_window(rows_alike(), 9, share=True)
    network = LanguageModelLoss(adapt(tiny_llama(), adapter)).train()
    with counting(network.parameters()) as ledger, torch.autocast("cpu", dtype=torch.bfloat16):
        backward_window(network, window, lambda loss: loss.backward())
    real = max(peak.total for peak in ledger.peaks().values())
    found = max(totals(held_by(tiny_llama().config, adapter, Precision.bf16, window)).values())
    assert found == pytest.approx(real, rel=0.05)


def test_gradients_are_those_of_the_trained_weights() -> None:
    window = pack_window(rows_alike(), 3, share=True)
    settings = tiny_gpt2().config
    held = held_by(settings, NONE, Precision.fp32, window)
    last = [phase for phase in held if phase.endswith("lower layers")][-1]
    assert held[last]["gradients"] == pytest.approx(4 * counts(outline(settings, NONE)).trainable, rel=0.01)


def test_a_trace_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    held_by(tiny_gpt2().config, LORA, Precision.fp32, pack_window(rows_alike(), 9, share=True))
    tiny = torch.get_rng_state()
    torch.set_rng_state(before)
    tiny_gpt2()
    assert torch.equal(tiny, torch.get_rng_state())
