"""A base in 4 bits: what it counts, that nothing changes it, and that it is trained as any other model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import MistralConfig

from fieldtune.config import AdapterConfig, AdapterKind, Packing
from fieldtune.errors import UserError
from fieldtune.models.adapters import adapt, parameter_counts
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.outline import counts, outline
from fieldtune.models.packable import must_pack_exactly, must_score_exactly
from fieldtune.models.quantized import make_optimizer
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.weights import Source, build
from tests.models.packed import FAMILIES, QLORA, packed, tiny, tiny_config
from tests.models.tiny import rows_alike
from tests.training.test_exact_loss import assert_equal, our_gradients, plain_gradients

bitsandbytes = pytest.importorskip("bitsandbytes")


def four_bit(model: nn.Module) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, bitsandbytes.nn.Linear4bit)]


def bits_of(model: nn.Module) -> list[torch.Tensor]:
    """Everything that a packed base holds."""
    states = [part.weight.quant_state for part in four_bit(model)]
    scales = [value for state in states for value in (state.absmax, state.state2.absmax, state.offset)]
    frozen = [p.detach() for p in model.parameters() if not p.requires_grad]
    return [tensor.clone() for tensor in (*frozen, *scales)]


@pytest.mark.parametrize(
    ("targets", "trained"), [([], 41_943_040), (["q_proj", "k_proj", "v_proj", "o_proj"], 13_631_488)]
)
def test_trained_parameters_of_a_mistral_7b(targets: list[str], trained: int) -> None:
    settings = MistralConfig(vocab_size=32768, sliding_window=None)
    found = counts(outline(settings, AdapterConfig(kind=AdapterKind.qlora, rank=16, bits=4, targets=targets)))
    assert found.trainable == trained
    assert found.parameters - trained == 7_248_023_552  # as published


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_weights_are_counted_as_what_they_stand_for(family: str, tiny_cache: Path) -> None:
    model = packed(family, tiny_cache)
    assert four_bit(model)
    assert parameter_counts(model) == parameter_counts(adapt(tiny(family, tiny_cache), QLORA))
    assert counts(model) == counts(outline(model.config, QLORA))


def test_double_quantization_packs_the_scales(tiny_cache: Path) -> None:
    for double in (True, False):
        state = four_bit(packed("mistral", tiny_cache, double=double))[0].weight.quant_state
        assert state.nested == double and state.quant_type == "nf4"
        assert state.absmax.dtype == (torch.uint8 if double else torch.float32)


def test_answers_leave_the_base_as_it_is(tiny_cache: Path) -> None:
    """bitsandbytes lays weights out anew for answers on processors with AVX512-BF16, and rounds their scales."""
    model = packed("mistral", tiny_cache).eval()
    before = bits_of(model)
    with torch.no_grad():
        model(input_ids=torch.arange(9)[None])
    after = bits_of(model)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packing", list(Packing))
def test_every_packing_equals_the_plain_loop(family: str, packing: Packing, tiny_cache: Path) -> None:
    rows = rows_alike()
    wanted_loss, wanted = plain_gradients(packed(family, tiny_cache), rows)
    found_loss, found = our_gradients(packed(family, tiny_cache), rows, 4, packing)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-5)
    assert_equal(found, wanted, 1e-4)
    assert all("lora_" in name for name in found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_packed_bases_can_be_packed_rows(family: str, compute: torch.dtype, tiny_cache: Path) -> None:
    network = LanguageModelLoss(packed(family, tiny_cache, compute))
    must_pack_exactly(network, rows_alike(), 64)
    must_score_exactly(network, rows_alike())


def test_what_makes_its_own_logits_is_refused(tiny_cache: Path) -> None:
    """As Cohere's and Granite's models do: the loss, which calls the head, would be another."""
    model = tiny("mistral", tiny_cache)
    forward = model.forward

    def scaled(**kwargs: Any) -> Any:
        out = forward(**kwargs)
        out.logits = out.logits / 8
        return out

    model.forward = scaled
    with pytest.raises(UserError, match="MistralForCausalLM cannot be trained here: its losses would be wrong by "):
        must_score_exactly(LanguageModelLoss(model), rows_alike())


def test_moments_in_8_bits_go_on_from_their_state() -> None:
    torch.manual_seed(0)
    one = nn.Parameter(torch.randn(100, 100))
    first = make_optimizer([one], lr=0.01, weight_decay=0.1, betas=(0.9, 0.999))

    def step(parameter: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        parameter.pow(2).sum().backward()
        optimizer.step()

    step(one, first)
    other = nn.Parameter(one.detach().clone())
    second = make_optimizer([other], lr=0.01, weight_decay=0.1, betas=(0.9, 0.999))
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        step(one, first)
        step(other, second)
    assert torch.equal(one, other)


def test_what_is_packed_already_is_refused(tiny_cache: Path, tmp_path: Path) -> None:
    packed("mistral", tiny_cache).get_base_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="are quantized already; give the model that they were made of"):
        build(tiny_config("mistral"), Source(tmp_path))


def test_an_adapter_is_not_merged_into_4_bits(tiny_cache: Path, tmp_path: Path) -> None:
    from fieldtune.models.quantized import Packed

    packed("mistral", tiny_cache).save_pretrained(tmp_path)
    source = Source(ensure_tiny("mistral", tiny_cache), tmp_path)
    with pytest.raises(UserError, match="is an adapter, which adapter=qlora cannot start from"):
        build(tiny_config("mistral"), source, Packed(torch.float32, True, torch.float32, "cpu"))
    build(tiny_config("mistral"), source)  # into 32 bits it is
