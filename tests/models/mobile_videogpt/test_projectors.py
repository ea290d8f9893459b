"""The token projector and its pooling, against the plainest way to say them."""

from __future__ import annotations

import torch
from torch.nn import functional

from fieldtune.models.mobile_videogpt.projectors import Projector, pool_patches


def test_pooling_averages_places_and_keeps_their_order() -> None:
    features = torch.arange(16.0)[None, :, None].expand(1, 16, 2)  # a 4 x 4 picture, row by row
    assert pool_patches(features, 2)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_names_and_arithmetic() -> None:
    torch.manual_seed(0)
    projector, features = Projector(6, 8, 2), torch.randn(3, 16, 6)
    layers = ("mlp.mlp.0", "mlp.mlp.2", "peg.peg.0")
    assert set(projector.state_dict()) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    weights = projector.state_dict()
    hidden = functional.gelu(features @ weights["mlp.mlp.0.weight"].T + weights["mlp.mlp.0.bias"])
    hidden = hidden @ weights["mlp.mlp.2.weight"].T + weights["mlp.mlp.2.bias"]
    pooled = hidden.view(3, 2, 2, 2, 2, 8).mean((2, 4))  # 2 x 2 places of 2 x 2 tokens
    padded = functional.pad(pooled, (0, 0, 1, 1, 1, 1))
    wanted = torch.zeros_like(pooled)
    for row in range(2):
        for column in range(2):
            seen = padded[:, row : row + 3, column : column + 3]
            kernel = weights["peg.peg.0.weight"][:, 0].permute(1, 2, 0)
            wanted[:, row, column] = (seen * kernel).sum((1, 2)) + weights["peg.peg.0.bias"] + pooled[:, row, column]
    torch.testing.assert_close(projector(features), wanted.reshape(3, 4, 8))
