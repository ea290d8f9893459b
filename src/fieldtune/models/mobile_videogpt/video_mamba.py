"""VideoMamba (arXiv 2403.06977): a clip as one sequence of patches, mixed by Mamba in both directions.

Names of parameters are those of the released checkpoints.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldtune.models.mobile_videogpt.scan import selective_scan
from fieldtune.models.mobile_videogpt.shapes import Shape

NORM_EPSILON = 1e-5
STEPS = (1e-3, 1e-1)  # range of the first step sizes


def causal_conv(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """`conv` by channel over x [batch, length, channels], of which a token sees itself and those before it.

    Shifted products: the length stays in the middle, where the scan wants it.
    """
    seen = conv.kernel_size[0]
    early = functional.pad(x, (0, 0, seen - 1, 0))
    assert conv.bias is not None
    mixed = conv.bias.expand_as(x)
    for shift in range(seen):
        mixed = torch.addcmul(mixed, early[:, shift : shift + x.shape[1]], conv.weight[:, 0, shift])
    return mixed


def rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """In fp32, the result in the type of the weights."""
    width = list(norm.normalized_shape)
    return functional.rms_norm(x.float(), width, norm.weight.float(), norm.eps).to(norm.weight.dtype)


class Mixer(nn.Module):
    """The bidirectional Mamba block: out_proj(scan(xz) + flip(scan_b(flip(xz)))), the gate z inside each scan.

    The parameters that end in _b (A_b_log among them) belong to the direction from the end to the beginning.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        channels = shape.video_width * shape.video_expand
        self.sizes = [shape.step_rank, shape.video_state, shape.video_state]
        self.in_proj = nn.Linear(shape.video_width, 2 * channels, bias=False)
        self.conv1d, self.conv1d_b = (_conv(channels, shape.video_conv) for _ in range(2))
        self.x_proj, self.x_proj_b = (nn.Linear(channels, sum(self.sizes), bias=False) for _ in range(2))
        self.dt_proj, self.dt_proj_b = (_step_projection(shape.step_rank, channels) for _ in range(2))
        self.A_log, self.A_b_log = (_rates(channels, shape.video_state) for _ in range(2))
        self.D, self.D_b = (nn.Parameter(torch.ones(channels)) for _ in range(2))
        self.out_proj = nn.Linear(channels, shape.video_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] -> the same."""
        values, gate = self.in_proj(x).chunk(2, -1)
        ahead = self._scan(values, gate, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        flipped = (values.flip(1), gate.flip(1))
        back = self._scan(*flipped, self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        mixed: Tensor = self.out_proj(ahead + back.flip(1))
        return mixed

    def _scan(
        self,
        values: Tensor,
        gate: Tensor,
        conv: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
        log_rates: Tensor,
        skip: Tensor,
    ) -> Tensor:
        values = functional.silu(causal_conv(values, conv))
        low, entry, reading = x_proj(values).split(self.sizes, -1)
        delta = functional.linear(low, dt_proj.weight)
        rates = -torch.exp(log_rates.float())
        return selective_scan(values, delta, rates, entry, reading, skip.float(), gate, dt_proj.bias.float())


def _conv(channels: int, seen: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, seen, groups=channels, padding=seen - 1)


def _step_projection(rank: int, channels: int) -> nn.Linear:
    """Begins with step sizes, after the softplus, spread evenly over the logarithms of `STEPS`."""
    projection = nn.Linear(rank, channels)
    low, high = (math.log(step) for step in STEPS)
    step = torch.exp(torch.rand(channels) * (high - low) + low)
    with torch.no_grad():
        nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
        projection.bias.copy_(step + torch.log(-torch.expm1(-step)))
    return projection


def _rates(channels: int, states: int) -> nn.Parameter:
    return nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(channels, 1))


class Block(nn.Module):
    """Add, then norm, then mix: the sum stays in fp32 and is passed on beside the mixer's output."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mixer = Mixer(shape)
        self.norm = nn.RMSNorm(shape.video_width, NORM_EPSILON)

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        residual = x.float() if residual is None else residual + x
        return self.mixer(rms_norm(self.norm, residual)), residual


class PatchEmbed(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        pixels = (1, shape.patch, shape.patch)
        self.proj = nn.Conv3d(3, shape.video_width, pixels, pixels)

    def forward(self, clip: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] -> [batch, frames, patches, width of the model]."""
        patches: Tensor = self.proj(clip.transpose(1, 2))
        return patches.flatten(3).permute(0, 2, 3, 1)


class AlignedHead(nn.Module):
    """The decoder of VideoMamba's pre-training. It is part of the checkpoints and takes no part in a forward pass."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head = nn.Linear(shape.video_width, shape.video_aligned)
        self.norm = nn.LayerNorm(shape.video_aligned)


class VideoMamba(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(shape)
        width = shape.video_width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.patches + 1, width))
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, shape.clip_frames, width))
        for table in (self.cls_token, self.pos_embed, self.temporal_pos_embedding):
            nn.init.trunc_normal_(table, std=0.02)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.video_layers))
        self.norm = nn.RMSNorm(width, NORM_EPSILON)
        self.clip_decoder = nn.ModuleList([AlignedHead(shape)])

    def tokens(self, clip: Tensor) -> Tensor:
        """The sequence that the layers get: the class token, then the patches frame by frame.

        Each patch has the embedding of its place, and that of its frame; the class token has a place and no frame.
        """
        patches = self.patch_embed(clip.to(self.patch_embed.proj.weight.dtype))
        patches = patches + self.pos_embed[:, None, 1:] + self.temporal_pos_embedding[:, :, None]
        first = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([first.expand(len(clip), -1, -1), patches.flatten(1, 2)], 1)

    def forward(self, clip: Tensor) -> Tensor:
        """clip [batch, frames, 3, height, width] -> [batch, 1 + frames * patches, width], the class token first."""
        x: Tensor = self.tokens(clip)
        residual: Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual)
        return rms_norm(self.norm, x.float() if residual is None else residual + x)
