"""VideoMamba: its convolution, its block and its order of tokens, each against the plainest way to say it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldtune.models.mobile_videogpt.scan import selective_scan_reference
from fieldtune.models.mobile_videogpt.shapes import TINY
from fieldtune.models.mobile_videogpt.video_mamba import Mixer, VideoMamba, causal_conv


@pytest.fixture
def mixer() -> Mixer:
    torch.manual_seed(0)
    made = Mixer(TINY)
    with torch.no_grad():  # both directions begin alike where their weights are set, so that a mix-up would not show
        for name in ("A_log", "A_b_log", "D", "D_b"):
            getattr(made, name).add_(0.3 * torch.randn_like(getattr(made, name)))
    return made


def test_the_convolution_sees_no_later_token() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv1d(6, 6, 4, groups=6, padding=3), torch.randn(2, 9, 6)
    plain = conv(x.transpose(1, 2))[..., :9].transpose(1, 2)
    torch.testing.assert_close(causal_conv(x, conv), plain)


def one_direction(mixer: Mixer, xz: Tensor, ending: str, log_rates: Tensor, skip: Tensor) -> Tensor:
    """The slow path of the published Mamba block, with the channels first as there."""
    part = {name: getattr(mixer, name + ending) for name in ("conv1d", "x_proj", "dt_proj")}
    x, z = xz.chunk(2, dim=1)
    x = functional.silu(part["conv1d"](x)[..., : x.shape[2]])
    dt, B, C = torch.split(part["x_proj"](x.transpose(1, 2)), mixer.sizes, dim=-1)
    delta = dt @ part["dt_proj"].weight.T
    rates = -torch.exp(log_rates)
    bias = part["dt_proj"].bias
    scanned = selective_scan_reference(x.transpose(1, 2), delta, rates, B, C, skip, z.transpose(1, 2), bias)
    return scanned.transpose(1, 2)


def test_the_block_is_the_published_rule(mixer: Mixer) -> None:
    """out_proj(scan(xz) + flip(scan_b(flip(xz))))."""
    x = torch.randn(2, 21, TINY.video_width)
    xz = mixer.in_proj(x).transpose(1, 2)
    ahead = one_direction(mixer, xz, "", mixer.A_log, mixer.D)
    back = one_direction(mixer, xz.flip([-1]), "_b", mixer.A_b_log, mixer.D_b).flip([-1])
    torch.testing.assert_close(mixer(x), mixer.out_proj((ahead + back).transpose(1, 2)), atol=1e-5, rtol=1e-5)


def test_tokens_see_both_sides(mixer: Mixer) -> None:
    x = torch.randn(1, 9, TINY.video_width)
    changed = x.clone()
    changed[:, 4] += 1.0
    moved = (mixer(x) - mixer(changed)).abs().amax(-1)[0]
    assert (moved > 0).all()
    with torch.no_grad():  # without what the backward direction writes, nothing before the change moves
        mixer.conv1d_b.weight.zero_()
        mixer.conv1d_b.bias.zero_()
    moved = (mixer(x) - mixer(changed)).abs().amax(-1)[0]
    assert (moved[:4] == 0).all() and (moved[4:] > 0).all()


def test_every_weight_of_both_directions_is_used(mixer: Mixer) -> None:
    mixer(torch.randn(1, 9, TINY.video_width)).pow(2).sum().backward()
    names = {name for name, weight in mixer.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert names == set()
    assert {name for name, _ in mixer.named_parameters() if "_b" in name.split(".")[0]} == {
        "A_b_log", "D_b", "conv1d_b.weight", "conv1d_b.bias", "x_proj_b.weight", "dt_proj_b.weight", "dt_proj_b.bias",
    }  # fmt: skip


def test_tokens_stand_frame_by_frame_after_the_class_token() -> None:
    torch.manual_seed(0)
    tower = VideoMamba(TINY)
    clip = torch.randn(2, TINY.clip_frames, 3, TINY.image_size, TINY.image_size)
    tokens = tower.tokens(clip)
    assert tokens.shape == (2, TINY.video_length, TINY.video_width)
    torch.testing.assert_close(tokens[1, 0], tower.cls_token[0, 0] + tower.pos_embed[0, 0])
    frame, row, column, side = 5, 1, 2, TINY.image_size // TINY.patch
    pixels = clip[1, frame, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
    place = row * side + column
    kernel = tower.patch_embed.proj
    wanted = (kernel.weight[:, :, 0] * pixels).sum((1, 2, 3)) + kernel.bias
    wanted = wanted + tower.pos_embed[0, 1 + place] + tower.temporal_pos_embedding[0, frame]
    torch.testing.assert_close(tokens[1, 1 + frame * TINY.patches + place], wanted)


def test_the_residual_is_kept_in_single_precision() -> None:
    tower = VideoMamba(TINY).to(torch.bfloat16)
    _, residual = tower.layers[0](torch.randn(1, 5, TINY.video_width, dtype=torch.bfloat16), None)
    x, residual = tower.layers[1](torch.randn(1, 5, TINY.video_width, dtype=torch.bfloat16), residual)
    assert residual.dtype == torch.float32 and x.dtype == torch.bfloat16


def test_the_layers_add_then_norm_then_mix() -> None:
    torch.manual_seed(0)
    tower = VideoMamba(TINY)
    clip = torch.randn(1, TINY.clip_frames, 3, TINY.image_size, TINY.image_size)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    total = tower.tokens(clip)
    for layer in tower.layers:
        total = total + layer.mixer(norm(total, layer.norm.weight))
    torch.testing.assert_close(tower(clip), norm(total, tower.norm.weight), atol=1e-5, rtol=1e-5)
