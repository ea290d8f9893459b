"""Mobile-VideoGPT in the one data path: places of a film, packs, answers, and what is kept of films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldtune.config import Accelerator, AdapterConfig, AdapterKind, Packing, Precision, VisionPart
from fieldtune.data.encode import Encoded, EncodeError, Encoder
from fieldtune.data.load import Rows
from fieldtune.data.media import media_of
from fieldtune.data.media_cache import MediaCache
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.errors import UserError
from fieldtune.models.adapters import adapt
from fieldtune.models.films import FilmReader
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.kept_films import KeptFilms, chosen_frames
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.packable import must_pack_exactly, must_score_exactly
from fieldtune.models.run_model import hold
from fieldtune.ranks import Rank
from fieldtune.records import Example, Media, Message
from tests.models.pictures import QUESTIONS, seeing, seeing_encoder, turns, write_picture
from tests.sources.films import cut, write_film

NAME = "mobile_videogpt"
PLACES = 72


@pytest.fixture
def encoder(tiny_cache: Path) -> Encoder:
    return seeing_encoder(NAME, tiny_cache)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Media]:
    folder = tmp_path_factory.mktemp("films")
    return [Media("video", str(write_film(folder / f"{n}.mp4", range(20 * n, 20 * n + 20)))) for n in range(2)]


def examples(films: list[Media]) -> list[Example]:
    """Two questions about each film."""
    asked = [(number, question) for number in range(len(films)) for question in QUESTIONS[:2]]
    return [
        Example(f"row-{at}", turns([films[number]], question, f"It is {number}."), "here", f"row-{at}")
        for at, (number, question) in enumerate(asked)
    ]


def rows(encoder: Encoder, films: list[Media]) -> Rows:
    made = examples(films)
    return Rows(made, [encoder.row(one.messages) for one in made], [])


def adapted(cache: Path, **parts: Any) -> Any:
    return adapt(seeing(NAME, cache), AdapterConfig(kind=AdapterKind.lora, rank=2, **parts))


def test_a_film_takes_its_places_between_the_turn_and_the_question(encoder: Encoder, films: list[Media]) -> None:
    (user, _) = turns([films[0]], "What is it?", "It.")
    text = encoder.prompt_text([Message("system", ("You coach.",)), user])
    assert text == (
        "<|im_start|>system\nYou coach.<|im_end|>\n<|im_start|>user\n<|video_pad|>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    one, other, third = (encoder.row(example.messages) for example in examples(films)[:3])
    assert [(row.ids < 0).sum() for row in (one, other, third)] == [PLACES] * 3
    assert np.array_equal(one.ids[one.ids < 0], other.ids[other.ids < 0])  # the same film
    assert not set(one.ids[one.ids < 0]) & set(third.ids[third.ids < 0])
    assert not one.trained[one.ids < 0].any()


def test_what_is_no_film_is_left_out(encoder: Encoder, films: list[Media], tmp_path: Path) -> None:
    picture = Media("image", str(write_picture(tmp_path / "one.png", (60, 60), 1)))
    with pytest.raises(EncodeError, match="an image; this model is shown films only"):
        encoder.row(turns([picture], "What is it?", "It."))
    with pytest.raises(EncodeError, match=r"gone.mp4 cannot be shown"):
        encoder.row(turns([Media("video", str(tmp_path / "gone.mp4"))], "What is it?", "It."))
    with pytest.raises(EncodeError, match="a special token"):
        encoder.row(turns([films[0]], "What is <|video_pad|>?", "It."))


def test_packs_and_padded_rows_are_exact(encoder: Encoder, films: list[Media], tiny_cache: Path) -> None:
    found: list[Encoded] = rows(encoder, films).encoded
    network = LanguageModelLoss(adapted(tiny_cache))
    must_pack_exactly(network, found, 1024)
    must_score_exactly(network, found)


def test_parts_are_trained_as_asked(tiny_cache: Path) -> None:
    model = adapted(tiny_cache, vision=VisionPart.lora)
    trained = {name for name, parameter in unwrapped(model).named_parameters() if parameter.requires_grad}
    assert any("lora_" in name and name.startswith("language_model.model.layers") for name in trained)
    assert any("lora_" in name and name.startswith("video_tower.layers.0.mixer.in_proj") for name in trained)
    assert any("lora_" in name and name.startswith("image_tower") for name in trained)
    assert not any("dt_proj" in name or "clip_decoder" in name for name in trained)  # an adapter would not be called
    for projector in ("image_projector", "video_projector"):
        parameters = {name for name, _ in unwrapped(model).named_parameters() if name.startswith(projector)}
        assert len(parameters) == 6 and parameters <= trained
    towers = [name for name in trained if name.startswith(("image_tower", "video_tower")) and "lora_" not in name]
    assert not towers


def test_gradients_reach_both_projectors(encoder: Encoder, films: list[Media], tiny_cache: Path) -> None:
    from fieldtune.data.batches import collate, with_media

    network = LanguageModelLoss(adapted(tiny_cache))
    loss, _ = network(**with_media(collate(rows(encoder, films).encoded, 0)))
    loss.backward()
    for projector in ("image_projector", "video_projector"):
        part = unwrapped(network.model).get_submodule(projector)
        assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in part.parameters())
    assert all(one.grad is None for tower in unwrapped(network.model).towers for one in tower.parameters())


def test_answers_are_those_of_the_plain_network(encoder: Encoder, films: list[Media], tiny_cache: Path) -> None:
    model = adapted(tiny_cache)
    prompts = [encoder.prompt(turns([film], "What is it?", "")[:1]) for film in films]
    answers = generate(model, encoder.tokenizer, prompts, Sampling(4))
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        media = media_of(ids)
        assert media is not None
        features = unwrapped(model).features(*(media["inputs"][name][0] for name in ("context", "frames")))
        with torch.no_grad():
            for _ in range(answer.tokens):
                logits = unwrapped(model)(ids, features).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        chosen = ids[0, len(prompt) :].tolist()
        assert encoder.tokenizer.decode(chosen).strip() == answer.text


@pytest.mark.parametrize("vision", [VisionPart.frozen, VisionPart.full])
def test_kept_films_are_those_that_are_decoded(
    vision: VisionPart, encoder: Encoder, films: list[Media], tiny_cache: Path, tmp_path: Path
) -> None:
    model = adapted(tiny_cache, vision=vision)
    reader = encoder.reader
    assert isinstance(reader, FilmReader)
    shown = [row.media[0] for row in rows(encoder, films).encoded[::2]]
    with torch.no_grad():
        wanted = unwrapped(model).get_image_features(**reader.inputs(shown)).pooler_output
        for made, read in ((2, 0), (0, 2)):
            cache = MediaCache(tmp_path / "media")
            kept = KeptFilms(cache, reader, unwrapped(model), Precision.fp32)
            reader.kept = kept.tensors
            found = unwrapped(model).get_image_features(**reader.inputs(shown)).pooler_output
            assert torch.allclose(found, wanted, atol=1e-6)
            assert (cache.counts.made, cache.counts.read) == (made, read)


def test_windows_that_are_made_ahead_are_those_made_one_by_one(
    encoder: Encoder, films: list[Media], tiny_cache: Path, tmp_path: Path
) -> None:
    reader, found = encoder.reader, rows(encoder, films)
    assert isinstance(reader, FilmReader)
    kept = KeptFilms(MediaCache(tmp_path / "media"), reader, seeing(NAME, tiny_cache), Precision.fp32)
    reader.kept = kept.tensors
    kept.filled([found], Rank(), Accelerator.cpu)
    windows = Windows(found.encoded, Schedule(4, 2, 1, 7, 3, None), Packing.shared_prefix, 0)
    ahead = [window["micro_batches"] for window in windows]
    assert len(ahead) == 6
    for step, batches in enumerate(ahead):
        for one, other in zip(batches, windows.ready(step)["micro_batches"], strict=True):
            assert one["media"] is not None and other["media"] is not None
            assert torch.equal(one["ids"], other["ids"]) and torch.equal(one["media"]["rows"], other["media"]["rows"])
            for name, tensor in one["media"]["inputs"].items():
                assert torch.equal(tensor, other["media"]["inputs"][name])


def test_a_broken_film_costs_its_rows(encoder: Encoder, films: list[Media], tiny_cache: Path, tmp_path: Path) -> None:
    broken = Media("video", str(cut(write_film(tmp_path / "broken.mp4", range(90, 120)), 0.3)))
    reader = encoder.reader
    assert isinstance(reader, FilmReader)
    kept = KeptFilms(MediaCache(tmp_path / "media"), reader, seeing(NAME, tiny_cache), Precision.fp32)
    (left,) = kept.filled([rows(encoder, [films[0], broken])], Rank(), Accelerator.cpu)
    assert [example.id for example in left.examples] == ["row-0", "row-1"] and len(left.encoded) == 2
    assert [identity for identity, _ in left.left_out] == ["row-2", "row-3"]
    assert "broken.mp4" in left.left_out[0][1]
    with pytest.raises(UserError, match="no row can be used"):
        kept.filled([rows(encoder, [broken])], Rank(), Accelerator.cpu)


def test_other_weights_of_the_towers_are_another_entry(
    encoder: Encoder, films: list[Media], tiny_cache: Path, tmp_path: Path
) -> None:
    reader = encoder.reader
    assert isinstance(reader, FilmReader)
    (shown,) = rows(encoder, films[:1]).encoded[0].media
    for changed in (False, True):
        model = seeing(NAME, tiny_cache)
        model.requires_grad_(False)
        if changed:
            model.video_tower.layers[0].mixer.D.add_(1)
        cache = MediaCache(tmp_path / "media")
        KeptFilms(cache, reader, model, Precision.fp32).tensors(shown)
        assert cache.counts.made == 1


def test_a_model_in_bf16_looks_as_the_training_in_bf16_did(
    encoder: Encoder, films: list[Media], tiny_cache: Path, tmp_path: Path
) -> None:
    """Towers stay in fp32, so that the entry is the training's; the projectors take it in their own format."""
    reader = encoder.reader
    assert isinstance(reader, FilmReader)
    (shown,) = rows(encoder, films[:1]).encoded[0].media
    for made, held in ((1, False), (0, True)):
        model = adapted(tiny_cache)
        if held:
            hold(model, torch.bfloat16)
        cache = MediaCache(tmp_path / "media")
        kept = KeptFilms(cache, reader, unwrapped(model), Precision.bf16)
        film = {name: tensor[None] for name, tensor in kept.tensors(shown).items()}
        chosen = kept.chosen(shown)
        assert cache.counts.made == made and film["images"].dtype == torch.bfloat16
        assert list(chosen.frames) == sorted({*chosen.frames}) and len(chosen.frames) == 8
        looked = chosen_frames(model, None, shown)
        assert looked is not None and list(looked.frames) == list(chosen.frames)
        features = unwrapped(model).get_image_features(**film).pooler_output
        assert features.dtype == (torch.bfloat16 if held else torch.float32)
