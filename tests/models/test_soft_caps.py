"""Gemma 2's soft caps, in every packing, against transformers' own forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fieldtune.config import Packing
from fieldtune.errors import UserError
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.packable import must_pack_exactly
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.tokenizer import PretrainedTokenizer
from tests.models.packed import tiny
from tests.models.tiny import rows_alike
from tests.training.test_exact_loss import assert_equal, our_gradients, plain_gradients


def capped(cache: Path, attention: float = 0.05, logits: float = 3.0) -> Any:
    """With caps so low that they change everything."""
    model = tiny("gemma2", cache)
    model.config.final_logit_softcapping = logits
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = attention
        layer.self_attn.q_proj.weight.data.mul_(5)
        layer.self_attn.k_proj.weight.data.mul_(5)
    return model


@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("micro", [2, 9])
def test_every_packing_equals_the_plain_loop(packing: Packing, micro: int, tiny_cache: Path) -> None:
    rows = rows_alike()
    wanted_loss, wanted = plain_gradients(capped(tiny_cache), rows)
    for other in (capped(tiny_cache, attention=50.0), capped(tiny_cache, logits=30.0)):
        assert plain_gradients(other, rows)[0] != pytest.approx(wanted_loss, rel=1e-4)
    found_loss, found = our_gradients(capped(tiny_cache), rows, micro, packing)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-5)
    assert_equal(found, wanted, 1e-4)


def test_answers_are_those_of_transformers(tiny_cache: Path) -> None:
    tokenizer = PretrainedTokenizer(ensure_tiny("gemma2", tiny_cache))
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    plain, network = capped(tiny_cache), LanguageModelLoss(capped(tiny_cache))
    for one in (plain, network.model):
        answers = generate(one, tokenizer, prompts, Sampling(8))
        assert [answer.text for answer in answers] == [a.text for a in generate(plain, tokenizer, prompts, Sampling(8))]


def test_a_window_shorter_than_the_context_is_refused(tiny_cache: Path) -> None:
    network = LanguageModelLoss(tiny("gemma2", tiny_cache))
    must_pack_exactly(network, rows_alike(), 1024)
    with pytest.raises(UserError, match=r"sees only 1,024 tokens back.*give trainer.packing=none or model.context_len"):
        must_pack_exactly(network, rows_alike(), 1025)


def test_a_window_without_packing_is_transformers(tiny_cache: Path) -> None:
    """Rows longer than what a layer sees, padded: the mask is transformers' own."""
    rows = rows_alike()
    models = [capped(tiny_cache), capped(tiny_cache)]
    for model in models:
        model.config.sliding_window = 7
    wanted_loss, wanted = plain_gradients(models[0], rows)
    assert wanted_loss != pytest.approx(plain_gradients(capped(tiny_cache), rows)[0], rel=1e-5)
    found_loss, found = our_gradients(models[1], rows, 4, Packing.none)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-5)
    assert_equal(found, wanted, 1e-4)
    assert torch.is_grad_enabled()
