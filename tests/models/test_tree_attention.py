"""Attention over a tree: segments, block by block, are the softmax under the tree's mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fieldtune.data.packing import pack_window
from fieldtune.models import block_attention, tree_attention
from fieldtune.models.layout import Layout
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.tree_attention import attend
from fieldtune.training.window import backward_window
from tests.models.tiny import rows_alike, tied_llama, tiny_gpt2

LAYOUT = Layout(
    causal=((0, 10), (10, 15), (15, 40), (40, 55)),
    full=((10, 55, 0, 10), (15, 40, 10, 15)),
    trunk=((0, 40, 0, 20), (40, 55, 0, 12)),
)


@pytest.mark.parametrize("groups", [3, 9])
@pytest.mark.parametrize("block", [4, 128])
def test_blocks_equal_a_mask(groups: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "BLOCK", block)
    torch.manual_seed(0)

    def made(heads: int, tokens: int) -> Tensor:
        return torch.randn(1, tokens, heads, 16, dtype=torch.float64).transpose(1, 2).requires_grad_()

    inputs = made(9, 55), made(groups, 55), made(groups, 55), made(groups, 20), made(groups, 20)
    query, key, value, trunk_key, trunk_value = inputs
    outward = torch.randn(1, 55, 9, 16, dtype=torch.float64)
    found = attend(query, key, value, LAYOUT, 0.25, (trunk_key, trunk_value))
    seen = torch.zeros(55, 75, dtype=torch.bool)  # written out once more, token by token
    for token in range(55):
        first = next(a for a, b in LAYOUT.causal if a <= token < b)
        seen[token, 20 + first : 20 + token + 1] = True
        for spans, shift in ((LAYOUT.full, 20), (LAYOUT.trunk, 0)):
            for a, b, c, d in spans:
                if a <= token < b:
                    seen[token, shift + c : shift + d] = True
    assert torch.equal(LAYOUT.mask(55, 20, query.device), seen)
    keys, values = torch.cat([trunk_key, key], 2), torch.cat([trunk_value, value], 2)
    wanted = functional.scaled_dot_product_attention(query, keys, values, seen, scale=0.25, enable_gqa=True)
    wanted = wanted.transpose(1, 2)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found, inputs, outward), torch.autograd.grad(wanted, inputs, outward), strict=True
    ):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [tiny_gpt2, tied_llama])
@pytest.mark.parametrize("micro", [2, 9])
def test_with_the_mask_that_other_devices_use(make: object, micro: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no kernel takes the blocks (GPUs) the same passes run with their mask."""
    window = pack_window(rows_alike(), micro, share=True)
    results = []
    for device in ("cpu", "meta"):
        monkeypatch.setattr(tree_attention, "BLOCKS_ON", device)
        model = make()  # type: ignore[operator]
        loss = float(backward_window(LanguageModelLoss(model), window, Tensor.backward))
        results.append((loss, {name: p.grad for name, p in model.named_parameters()}))
    (one_loss, one), (other_loss, other) = results
    assert one_loss == pytest.approx(other_loss, rel=1e-6)
    for name, gradient in one.items():
        assert (other[name] - gradient).norm() <= 2e-6 * gradient.norm(), name


def test_inputs_of_mixed_precision_are_made_one_kind() -> None:
    """transformers' rotary positions leave fp32 queries and keys beside bf16 values."""
    query, key, value = torch.randn(3, 1, 2, 5, 8).requires_grad_()
    found = attend(query, key, value.bfloat16(), Layout(((0, 5),)), 0.25)
    wanted = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.25)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), wanted.transpose(1, 2), atol=0.05)
    found.sum().backward()
