"""Layers exchanged for faster ones compute what the originals compute, forth and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from fieldtune.config import Family, ModelConfig
from fieldtune.data.batches import pad_window
from fieldtune.data.packing import pack_window
from fieldtune.models.fused import EXCHANGES, fuse
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.weights import Source, build
from fieldtune.training.window import backward_window
from tests.models.tiny import lora_gpt2, lora_llama, rows_alike, tied_llama, tiny_gpt2, tiny_llama, tiny_mistral


def gradients(network: LanguageModelLoss) -> tuple[float, dict[str, Tensor]]:
    loss = backward_window(network, pack_window(rows_alike(), 4, share=True), Tensor.backward)
    return float(loss), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama, tiny_mistral, tied_llama, lora_gpt2, lora_llama])
def test_exchanged_layers_are_exact(make: Callable[[], Any]) -> None:
    plain, fused = LanguageModelLoss(make(), fused=False), LanguageModelLoss(make())
    assert any(type(module) in EXCHANGES.values() for module in fused.modules())
    (wanted_loss, wanted), (found_loss, found) = gradients(plain), gradients(fused)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-6)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 2e-6 * gradient.norm(), name


def test_names_and_saved_weights_stay(tmp_path: Any) -> None:
    model = tiny_llama()
    names = list(model.state_dict())
    assert fuse(model) == 2 * 3 + 2  # two layers with two norms each; the last norm and the embedding
    assert fuse(model) == 0
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_adapter_in_an_unknown_state_is_left_to_peft() -> None:
    model = lora_llama()
    network = LanguageModelLoss(model)
    batch = pack_window(rows_alike(), 9, share=True)["micro_batches"][0]
    adapted = float(network(**batch)[0].detach())
    with model.disable_adapter():
        base = float(network(**batch)[0].detach())
    wanted = float(LanguageModelLoss(tiny_llama(), fused=False)(**batch)[0].detach())
    assert base == pytest.approx(wanted, rel=1e-6) != adapted


def test_the_padding_token_learns(tmp_path: Path) -> None:
    """An embedding with a padding index would drop the gradient of SmolLM2's end-of-turn token (see weights.build)."""
    model, token = tiny_llama(), int(rows_alike()[0].ids[0])  # not tied: the head gives the embedding no gradient
    model.config.pad_token_id = token
    model.save_pretrained(tmp_path)
    assert LlamaForCausalLM.from_pretrained(tmp_path).get_input_embeddings().padding_idx == token
    settings = ModelConfig(name="tiny", family=Family.causal_lm, weights=f"folder:{tmp_path}", context_length=32)
    name = "model.model.embed_tokens.weight"
    found, wanted = (
        gradients(LanguageModelLoss(one))[1][name] for one in (build(settings, Source(tmp_path)), tiny_llama())
    )
    assert wanted[token].norm() > 0.01
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama, tiny_mistral])
def test_what_a_layer_keeps(make: Callable[[], Any], padded: bool) -> None:
    """Of each token: its state before and between the two halves, queries, keys, values, what attention saw, and the
    unit's inner vectors; no output of a norm, of an activation or of a gated unit."""
    network = LanguageModelLoss(make())
    window = pad_window(rows_alike(), 9, 0) if padded else pack_window(rows_alike(), 9, share=True)
    (batch,) = window["micro_batches"]
    owned = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in owned and tensor.is_floating_point():
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        network(**batch)
    tokens = batch["ids"].numel()
    heads = 3 * 32 if make is tiny_gpt2 else 2 * 32  # of the others, keys and values are half as wide as queries
    a_layer = 2 * 32 + heads + 32 + 128
    rest = 32 + 32 + 2 * 8  # the last norm's input, its output at the labels, the tables of the angles
    attention = 2 * 4 + (4 * 32 if padded else 0)  # sums of the softmax a head; keys and values for each head
    assert sum(kept.values()) <= tokens * (2 * (a_layer + attention) + rest) * 1.02
