"""The efficient token projector (ETP): features of a tower become fewer embeddings of the language model's width."""

from __future__ import annotations

from math import isqrt

from torch import Tensor, nn
from torch.nn import functional


def pool_patches(features: Tensor, grid: int) -> Tensor:
    """Average over the places of a square picture: [pictures, tokens, width] -> [pictures, grid ** 2, width]."""
    return _tokens(functional.adaptive_avg_pool2d(_picture(features), grid))


def _picture(tokens: Tensor) -> Tensor:
    side = isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)


def _tokens(picture: Tensor) -> Tensor:
    return picture.flatten(2).transpose(1, 2)


class Projector(nn.Module):
    """Linear, GELU, Linear; then the tokens as a picture: averaged to grid x grid, plus a 3 x 3 convolution by channel.

    The names of the parameters are those of the released checkpoints.
    """

    def __init__(self, width: int, hidden: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.mlp = nn.ModuleDict({"mlp": layers})
        self.peg = nn.ModuleDict({"peg": nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden))})

    def forward(self, features: Tensor) -> Tensor:
        """[pictures, tokens, width], the number of tokens a square -> [pictures, grid ** 2, hidden]."""
        features = self.mlp["mlp"](features.to(next(self.parameters()).dtype))
        picture = functional.adaptive_avg_pool2d(_picture(features), self.grid)
        return _tokens(self.peg["peg"](picture) + picture)
