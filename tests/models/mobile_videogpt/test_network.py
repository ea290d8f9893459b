"""The whole network: sizes as released, the film's way into the language model, and what learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldtune.errors import UserError
from fieldtune.models.mobile_videogpt.frame_choice import choose_frames
from fieldtune.models.mobile_videogpt.network import MobileVideoGPT, parameter_counts
from fieldtune.models.mobile_videogpt.shapes import MOBILE_VIDEOGPT_05B, MOBILE_VIDEOGPT_15B, TINY, Shape
from tests.models.mobile_videogpt.tiny import film, tiny_model

TOWERS = {"image_tower": 85_799_424, "video_tower": 73_941_504}


@pytest.mark.parametrize(
    ("shape", "language", "projectors"),
    [
        (MOBILE_VIDEOGPT_05B, 494_032_768, {"image_projector": 1_501_696, "video_projector": 1_329_664}),
        (MOBILE_VIDEOGPT_15B, 1_543_714_304, {"image_projector": 3_557_376, "video_projector": 3_262_464}),
    ],
)
def test_parameters_and_embeddings_of_the_released_sizes(
    shape: Shape, language: int, projectors: dict[str, int]
) -> None:
    with torch.device("meta"):
        model = MobileVideoGPT(shape)
        context, frames = film_of_shape(shape)
    assert parameter_counts(model) == {**TOWERS, **projectors, "language_model": language}
    look = model.look(context, frames)
    assert look.images.shape == (16, 196, 768)
    assert look.chosen.shape == (2, 4)
    assert look.video.shape == (2, 196, 576)
    assert model.image_projector(look.images).shape == (16, 144, shape.hidden)
    assert model.video_projector(look.video).shape == (2, 49, shape.hidden)
    assert model.project(look).shape == (2402, shape.hidden)
    sizes = (shape.image_embeddings, shape.video_embeddings, shape.embeddings, shape.video_length, shape.step_rank)
    assert sizes == (2304, 98, 2402, 1569, 36)


def test_the_larger_release_has_the_size_that_is_said_of_it() -> None:
    """1.62 billion parameters, CLIP's tower not among them: the released code adds it after loading."""
    with torch.device("meta"):
        counts = parameter_counts(MobileVideoGPT(MOBILE_VIDEOGPT_15B))
    assert round((sum(counts.values()) - counts["image_tower"]) / 1e9, 2) == 1.62


def film_of_shape(shape: Shape) -> Tensor:
    return torch.empty(2, shape.frames, 3, shape.image_size, shape.image_size)


@pytest.mark.slow
def test_a_film_at_full_size() -> None:
    """The released towers and projectors with random weights, in front of a small language model."""
    shape = replace(MOBILE_VIDEOGPT_05B, language={**TINY.language, "hidden_size": 896, "num_attention_heads": 14})
    model = tiny_model(shape=shape)
    with torch.no_grad():
        look = model.look(*film(shape=shape))
        features = model.project(look)
    assert features.shape == (2402, 896) and features.isfinite().all()
    assert all(first < 8 <= second for first, second in zip(*look.chosen.tolist(), strict=True))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"frames": 15}, "frames=15 is no multiple of chunk=8"),
        ({"kept": 9}, "kept=9 is not in 1..chunk=8"),
        ({"kept": 3}, "kept * video_pooled ** 2 = 12 is no square number"),
        ({"image_size": 50}, "image_size=50 is no multiple of patch=16"),
    ],
)
def test_sizes_that_do_not_go_together(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(UserError) as raised:
        replace(TINY, **wrong)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_the_image_features_are_those_before_the_last_layer() -> None:
    model, (context, frames) = tiny_model(), film()
    tower = model.image_tower
    hidden = tower.pre_layrnorm(tower.embeddings(context))
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None)
    torch.testing.assert_close(model.look(context, frames).images, hidden[:, 1:])


def test_video_mamba_sees_the_chosen_frames_as_one_clip() -> None:
    model, (context, frames) = tiny_model(), film()
    look = model.look(context, frames)
    first = choose_frames(look.images[None, :8], 4)[0].tolist()
    second = (choose_frames(look.images[None, 8:], 4)[0] + 8).tolist()
    assert look.chosen.tolist() == [first, second]
    features = model.video_tower(frames[first + second][None])[0, 1:]
    patches = features.view(8, 9, TINY.video_width)  # 3 x 3 of each frame
    pooled = functional.adaptive_avg_pool2d(patches.transpose(1, 2).unflatten(2, (3, 3)), 2)
    wanted = pooled.flatten(2).transpose(1, 2).reshape(2, 16, TINY.video_width)
    torch.testing.assert_close(look.video, wanted)
    others = sorted(set(range(16)) - set(first + second))
    changed = frames.clone()
    changed[others] = 0
    torch.testing.assert_close(model.look(context, changed).video, look.video)


def test_all_images_come_before_the_video() -> None:
    model = tiny_model()
    look = model.look(*film())
    features = model.project(look)
    assert features.shape == (TINY.embeddings, 32) == (72, 32)
    images, video = model.image_projector(look.images), model.video_projector(look.video)
    torch.testing.assert_close(features[4:8], images[1])
    torch.testing.assert_close(features[64:68], video[0])
    torch.testing.assert_close(features[68:], video[1])


def test_slots_take_the_embeddings_in_order() -> None:
    model = tiny_model()
    ids = torch.tensor([[3, -1, -2, 5], [-3, 7, 8, -4]])
    features = torch.randn(4, 32)
    embedded, table = model.embed(ids, features), model.get_input_embeddings().weight
    assert torch.equal(embedded[0], torch.stack([table[3], features[0], features[1], table[5]]))
    assert torch.equal(embedded[1], torch.stack([features[2], table[7], table[8], features[3]]))
    with pytest.raises(ValueError, match="4 media slots and 3 visual embeddings"):
        model.embed(ids, features[:3])
    with pytest.raises(ValueError, match="4 media slots and 0 visual embeddings"):
        model.embed(ids)


def test_pixels_of_another_size_are_refused() -> None:
    model, (context, frames) = tiny_model(), film()
    with pytest.raises(ValueError, match=r"frames has the shape \[15, 3, 48, 48\]; this model takes \[16, 3, 48, 48\]"):
        model.look(context, frames[1:])


def asked(model: MobileVideoGPT, features: Tensor) -> Tensor:
    """The loss of an answer to a question about a film."""
    ids = torch.cat([torch.tensor([11, 12]), -torch.arange(1, 1 + len(features)), torch.tensor([21, 22, 23, 24])])
    logits = model(ids[None], features).logits[0]
    return functional.cross_entropy(logits[-3:-1], ids[-2:])


def test_what_the_film_shows_reaches_the_language_model() -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        seen, other = (asked(model, model.features(*film(seed))) for seed in (0, 1))
        look = model.look(*film(0))
        still = asked(model, model.project(look._replace(video=torch.zeros_like(look.video))))
        blind = asked(model, model.project(look._replace(images=torch.zeros_like(look.images))))
    assert len({round(loss.item(), 7) for loss in (seen, other, still, blind)}) == 4


def test_projectors_and_language_model_learn_and_towers_do_not() -> None:
    model = tiny_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    loss = asked(model, model.features(*film()))
    loss.backward()
    for name, weight in model.named_parameters():
        learns = not name.startswith(("image_tower.", "video_tower."))
        assert weight.requires_grad == learns and (weight.grad is not None) == learns, name
        assert not learns or weight.grad.any(), name
    optimizer.step()
    same = {name.partition(".")[0] for name, weight in model.state_dict().items() if torch.equal(weight, before[name])}
    assert same == {"image_tower", "video_tower"}
    with torch.no_grad():
        assert asked(model, model.features(*film())) < loss


def test_towers_stay_in_evaluation_mode() -> None:
    model = tiny_model().train()
    assert model.language_model.training and model.video_projector.training
    assert not any(module.training for tower in model.towers for module in tower.modules())


def test_a_tower_can_be_trained() -> None:
    model = tiny_model()
    model.video_tower.requires_grad_(True)
    asked(model, model.features(*film())).backward()
    without = {name for name, weight in model.video_tower.named_parameters() if weight.grad is None}
    assert {name.partition(".")[0] for name in without} == {"clip_decoder"}
    mixer = model.video_tower.layers[0].mixer
    assert isinstance(mixer, nn.Module) and mixer.A_b_log.grad.any()
