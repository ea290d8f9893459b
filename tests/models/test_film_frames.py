"""Films for models that also see pictures: frames, ids, pixels and positions are those of the family's own processor.

The processors of transformers for videos need torchvision. It is no dependency of ours: without it the comparisons with
them are left out, and what it gave is compared by sums.
"""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldtune.config import TemplateKind, TokenizerKind
from fieldtune.data.encode import EncodeError, Encoder
from fieldtune.data.media import plain_inputs
from fieldtune.errors import UserError
from fieldtune.models.film_frames import QwenFilms, film_decoder, in_words
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.packable import must_pack_exactly, must_score_exactly
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.models.vision import Qwen2VLReader, load_reader, must_look_alike
from fieldtune.models.vision_reader import Reader
from fieldtune.records import Media
from fieldtune.sources.video import Film, decode, probe
from tests.models.pictures import pictures, seeing, seeing_encoder, turns
from tests.models.seen_films import FRAMES, TAKING_FILMS, films, rows_with_films
from tests.sources.films import write_film

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
if HAS_TORCHVISION and not hasattr(torch.ops.torchvision, "nms"):
    # A build for GPUs beside a torch for CPUs wants operators that it has not brought.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for operator in ("nms(Tensor d, Tensor s, float t) -> Tensor", "qnms(Tensor d, Tensor s, float t) -> Tensor"):
        LIBRARY.define(operator)


def own_processor(name: str, folder: Path) -> Any:
    """The family's processor of transformers, whole; skips where it cannot be had."""
    for package in ("torchvision", "num2words"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"transformers' processors of videos need {package}")
    from transformers import AutoImageProcessor, AutoTokenizer, AutoVideoProcessor
    from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
    from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor

    classes: dict[str, tuple[Any, dict[str, Any]]] = {
        "qwen2vl": (Qwen2VLProcessor, {}),
        "qwen25vl": (Qwen2_5_VLProcessor, {}),
        "smolvlm": (SmolVLMProcessor, {"image_seq_len": 4}),
        "onevision": (LlavaOnevisionProcessor, {"num_image_tokens": 49, "vision_feature_select_strategy": "full"}),
    }
    kind, settings = classes[name]
    return kind(
        image_processor=AutoImageProcessor.from_pretrained(str(folder), backend="pil"),
        tokenizer=AutoTokenizer.from_pretrained(str(folder)),
        video_processor=AutoVideoProcessor.from_pretrained(str(folder)),
        **settings,
    )


def saved(name: str, cache: Path, folder: Path) -> Path:
    """The small model's folder as a full training leaves it: with all settings of its films written down."""
    encoder = seeing_encoder(name, cache, FRAMES)
    assert encoder.reader is not None
    encoder.tokenizer.save(folder)
    encoder.reader.save(folder)
    return folder


@pytest.mark.parametrize("name", TAKING_FILMS)
def test_ids_and_pixels_are_those_of_the_familys_processor(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    encoder = seeing_encoder(name, tiny_cache, FRAMES)
    assert isinstance(encoder.reader, Reader)
    processor = own_processor(name, saved(name, tiny_cache, tmp_path))
    for media in films(tmp_path):
        asked = turns([media], "What is it?", "")[:1]
        row = encoder.row(turns([media], "What is it?", "It."))
        (shown,) = row.media
        film = probe(Path(media.path))
        wanted = processor(
            text=[encoder.prompt_text(asked)],
            videos=[decode(Path(media.path), shown.frames)],
            do_sample_frames=False,
            video_metadata=[
                {
                    "total_num_frames": film.frames,
                    "fps": film.fps,
                    "duration": film.frames / film.fps,
                    "frames_indices": list(shown.frames),
                }
            ],
            return_tensors="pt",
        )
        found = plain_inputs(torch.tensor([encoder.prompt(asked)]))
        assert found["input_ids"].tolist() == wanted["input_ids"].tolist(), media.path
        for key, value in wanted.items():
            if key in found and key != "input_ids":
                assert torch.equal(found[key], value), key
        if name == "qwen25vl":
            assert isinstance(encoder.reader.films, QwenFilms)
            assert encoder.reader.films.seconds(shown) == pytest.approx(
                float(wanted["second_per_grid_ts"][0]), rel=1e-6
            )


@pytest.mark.parametrize("name", ["qwen2vl", "smolvlm"])
def test_the_frames_are_those_that_the_familys_processor_takes(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    from transformers.video_utils import VideoMetadata

    processor = own_processor(name, saved(name, tiny_cache, tmp_path)).video_processor
    for most, (frames, rate) in itertools.product(
        (2, 4, 8, 64), [(2, 10.0), (30, 10.0), (49, 29.97), (301, 25.0), (5000, 24.0)]
    ):
        reader = seeing_encoder(name, tiny_cache, most).reader
        assert isinstance(reader, Reader) and reader.films is not None
        film = Film(frames, rate, frames / rate, 64, 48)
        told = VideoMetadata(total_num_frames=frames, fps=rate, duration=frames / rate)
        asked = {"max_frames": most, "fps": 2.0} if name == "qwen2vl" else {"num_frames": most, "fps": 1}
        assert reader.films.chosen(film) == processor.sample_frames(told, **asked).tolist(), (most, frames)


@pytest.mark.parametrize("name", TAKING_FILMS)
def test_a_row_in_a_pack_has_the_loss_that_the_model_itself_gives_it(
    name: str, tiny_cache: Path, tmp_path: Path
) -> None:
    rows = rows_with_films(seeing_encoder(name, tiny_cache, FRAMES), tmp_path)
    network = LanguageModelLoss(seeing(name, tiny_cache))
    must_score_exactly(network, rows)
    must_pack_exactly(network, rows, 1024)


@pytest.mark.parametrize("name", ["qwen2vl", "qwen25vl"])
def test_positions_are_those_of_the_model_until_the_film_ends(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    """And those after it too, where a film is not longer than its frames are large."""
    model = seeing(name, tiny_cache)
    short, *_, long = films(tmp_path)
    for media, frames in itertools.product((short, long), (2, 4, 32)):
        encoder = seeing_encoder(name, tiny_cache, frames)
        assert isinstance(encoder.reader, Qwen2VLReader)
        row = encoder.row(turns([media], "What is it?", "It."))
        (shown,) = row.media
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        told = plain_inputs(ids)
        told = {key: told[key] for key in ("input_ids", "mm_token_type_ids", "video_grid_thw")}
        if name == "qwen25vl":
            told["second_per_grid_ts"] = torch.tensor([encoder.reader.films.seconds(shown)])
        wanted = model.model.get_rope_index(**told)[0][:, 0].numpy()
        assert row.positions is not None
        end = int(np.flatnonzero(row.ids < 0)[-1]) + 1
        assert np.array_equal(row.positions[:, :end], wanted[:, :end])
        after = row.positions[:, end:]
        assert np.array_equal(after[0], row.positions[:, :end].max() + 1 + np.arange(after.shape[1]))
        if wanted[0, :end].max() <= wanted[1:, :end].max():
            assert np.array_equal(row.positions, wanted)


@pytest.mark.parametrize("name", TAKING_FILMS)
def test_answers_are_those_of_the_model_itself(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    encoder, model = seeing_encoder(name, tiny_cache, FRAMES), seeing(name, tiny_cache).eval()
    model.get_output_embeddings().weight.data.mul_(20)
    prompts = [encoder.prompt(turns([one], "What is it?", "")[:1]) for one in (*films(tmp_path), pictures(tmp_path)[0])]
    for prompt, answer in zip(prompts, generate(model, encoder.tokenizer, prompts, Sampling(4)), strict=True):
        inputs = plain_inputs(torch.tensor([prompt]))
        with torch.no_grad():
            for _ in range(answer.tokens):
                logits = model(**inputs, use_cache=False).logits
                inputs["input_ids"] = torch.cat([inputs["input_ids"], logits[:, -1:].argmax(-1)], 1)
                if "mm_token_type_ids" in inputs:
                    kinds = inputs["mm_token_type_ids"]
                    inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(kinds[:, :1])], 1)
                if "position_ids" in inputs:
                    places = inputs["position_ids"]
                    inputs["position_ids"] = torch.cat([places, places[..., -1:] + 1], -1)
        said = inputs["input_ids"][0, len(prompt) :].tolist()
        assert encoder.tokenizer.decode(said).strip() == answer.text


def test_a_film_and_a_picture_of_one_row(tiny_cache: Path, tmp_path: Path) -> None:
    """In the order in which they stand, whatever their kinds."""
    both = [films(tmp_path)[0], pictures(tmp_path)[1]]
    for name in ("qwen2vl", "qwen25vl", "smolvlm"):
        encoder = seeing_encoder(name, tiny_cache, FRAMES)
        rows = [encoder.row(turns(some, "Which is longer?", "It.")) for some in (both, both[::-1])]
        assert [[one.kind for one in row.media] for row in rows] == [["video", "image"], ["image", "video"]]
        network = LanguageModelLoss(seeing(name, tiny_cache))
        must_score_exactly(network, rows)
        must_pack_exactly(network, rows, 1024)


def test_pictures_and_films_are_not_shared_out_together_where_they_are_seen_apart(
    tiny_cache: Path, tmp_path: Path
) -> None:
    for name in ("onevision", "qwen2vl"):
        encoder = seeing_encoder(name, tiny_cache, FRAMES)
        rows = [encoder.row(turns([one], "What?", "It.")) for one in (films(tmp_path)[0], pictures(tmp_path)[0])]
        both = [row.media[0] for row in rows]
        with pytest.raises(UserError, match="a data set of one kind") if name == "onevision" else nullcontext():
            must_look_alike(both)
        must_look_alike(both[:1])
    must_look_alike([])


def test_what_is_said_around_the_frames_of_smolvlm(tiny_cache: Path, tmp_path: Path) -> None:
    encoder = seeing_encoder("smolvlm", tiny_cache)
    (row,) = [encoder.row(turns(films(tmp_path)[:1], "What is it?", "It."))]
    plain = plain_inputs(torch.from_numpy(row.ids.astype(np.int64))[None])["input_ids"][0].tolist()
    text = encoder.tokenizer.native.decode(plain)
    frame = "<fake_token_around_image><global-img><image><image><image><image><fake_token_around_image>"
    assert text.startswith(
        "<|im_start|>User: You are provided the following series of three frames from a 0:00:03 [H:MM:SS] video.\n"
        f"\nFrame from 00:00:{frame}\nFrame from 00:01:{frame}\nFrame from 00:02:{frame}\n\nWhat is it?"
    )
    assert [in_words(number) for number in (4, 16, 20, 21, 64, 100, 101, 420)] == [
        *("four", "sixteen", "twenty", "twenty-one", "sixty-four", "one hundred", "one hundred and one"),
        "four hundred and twenty",
    ]


def test_what_cannot_be_shown_is_said(tiny_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    cases = [
        ("qwen2vl", tmp_path / "none.mp4", "none.mp4 cannot be shown"),
        ("smolvlm", tmp_path / "broken.mp4", "broken.mp4 is not a film that can be read"),
        ("llava", tmp_path / "film.mp4", "a video; this model is shown images only"),
        ("llava_next", tmp_path / "film.mp4", "a video; this model is shown images only"),
    ]
    for name, path, wanted in cases:
        with pytest.raises(EncodeError, match=wanted):
            seeing_encoder(name, tiny_cache).row(turns([Media("video", str(path))], "What?", "It."))
    with pytest.raises(EncodeError, match="'<video>', which stands for a picture or film"):
        seeing_encoder("smolvlm", tiny_cache).row(turns(films(tmp_path)[:1], "What is <video>?", "It."))
    for name in ("llava", "mobile_videogpt"):
        with pytest.raises(UserError, match=r"leave model\.frames out"):
            seeing_encoder(name, tiny_cache, FRAMES)


@pytest.mark.parametrize("name", TAKING_FILMS)
def test_a_folder_that_training_leaves_shows_the_same(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    (media,) = films(tmp_path)[:1]
    folder = tmp_path / "left"
    shutil.copytree(ensure_tiny(name, tiny_cache), folder)
    saved(name, tiny_cache, folder)
    tokenizer = load_tokenizer(TokenizerKind.from_weights, folder)
    encoders = (seeing_encoder(name, tiny_cache, FRAMES), Encoder(tokenizer, TemplateKind.chat, None))
    encoders[1].reader = load_reader(folder, tokenizer, FRAMES)
    one, other = (plain_inputs(torch.tensor([each.prompt(turns([media], "What?", "")[:1])])) for each in encoders)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_forked_rank_reads_films_by_itself(tmp_path: Path) -> None:
    """Two processes that shared a decoder would get each other's frames, or none."""
    path = write_film(tmp_path / "film.mp4")
    ours = film_decoder()
    assert ours.probe(path).frames == 30

    def in_child() -> None:
        os._exit(0 if film_decoder() is not ours and film_decoder().probe(path).frames == 30 else 1)

    forked = multiprocessing.get_context("fork").Process(target=in_child)
    forked.start()
    forked.join(60)
    assert forked.exitcode == 0
    assert film_decoder() is ours and ours.probe(path).frames == 30
