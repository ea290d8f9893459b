"""Pictures become the ids and pixels that the family's own processor makes, and losses that its own forward gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fieldtune.config import TemplateKind, TokenizerKind
from fieldtune.data.encode import EncodeError, Encoder
from fieldtune.data.media import CONTENTS, plain_inputs
from fieldtune.models.answering import Question, answer_all
from fieldtune.models.decode import Prompt
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.packable import must_pack_exactly, must_score_exactly
from fieldtune.models.prefixes import Prefixes
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.models.vision import load_reader
from fieldtune.records import Media, Message
from tests.models.packed import tiny_config
from tests.models.pictures import (
    QUESTIONS,
    SEEING,
    SIZES,
    pictures,
    rows_that_see,
    seeing,
    seeing_encoder,
    turns,
    write_picture,
)

MANY_SIZES = [*SIZES, (20, 200), (200, 21), (112, 112), (300, 290), (33, 64)]


def own_processor(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The family's processor of transformers, but for videos, which it cannot have here."""
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.models.llava.processing_llava import LlavaProcessor
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
    from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", str)  # a package that only its videos need
    classes = {
        "llava": (LlavaProcessor, {"patch_size": 8, "vision_feature_select_strategy": "default"}),
        "llava_next": (LlavaNextProcessor, {"patch_size": 8, "vision_feature_select_strategy": "default"}),
        "onevision": (
            LlavaOnevisionProcessor,
            {"num_image_tokens": 49, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2"},
        ),
        "qwen2vl": (Qwen2VLProcessor, {}),
        "smolvlm": (processing_smolvlm.SmolVLMProcessor, {"image_seq_len": 4}),
    }
    kind, settings = classes[name]
    if name.startswith("llava"):
        settings = {**settings, "num_additional_image_tokens": 1}
    else:
        settings = {**settings, "video_processor": None}
        monkeypatch.setattr(kind, "check_argument_for_proper_class", lambda *_: None)
    return kind(
        image_processor=AutoImageProcessor.from_pretrained(str(folder), backend="pil"),
        tokenizer=AutoTokenizer.from_pretrained(str(folder)),
        **settings,
    )


@pytest.mark.parametrize("name", SEEING)
def test_ids_and_pixels_are_those_of_the_familys_processor(
    name: str, tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = seeing_encoder(name, tiny_cache)
    processor = own_processor(name, ensure_tiny(name, tiny_cache), monkeypatch)
    for media in pictures(tmp_path, MANY_SIZES):
        asked = turns([media], "What is it?", "")[:1]
        ids = torch.tensor([encoder.prompt(asked)])
        with Image.open(media.path) as image:
            wanted = processor(images=[image.convert("RGB")], text=[encoder.prompt_text(asked)], return_tensors="pt")
        found = plain_inputs(ids)
        assert found["input_ids"].tolist() == wanted["input_ids"].tolist(), media.path
        for key, value in wanted.items():
            if key not in ("input_ids", "attention_mask", "batch_num_images"):
                assert torch.equal(found[key], value), key


def test_two_pictures_of_a_row(tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llava", "qwen2vl", "smolvlm", "llava_next"):
        encoder = seeing_encoder(name, tiny_cache)
        processor = own_processor(name, ensure_tiny(name, tiny_cache), monkeypatch)
        media = pictures(tmp_path)[:2]
        asked = turns(media, "Which is larger?", "")[:1]
        images = [Image.open(one.path) for one in media]
        wanted = processor(images=[images] if name == "smolvlm" else images, text=[encoder.prompt_text(asked)])
        found = plain_inputs(torch.tensor([encoder.prompt(asked)]))
        assert found["input_ids"].tolist() == [list(row) for row in wanted["input_ids"]]
    with pytest.raises(EncodeError, match="2 pictures is not done with LLaVA-OneVision"):
        seeing_encoder("onevision", tiny_cache).prompt(asked)


@pytest.mark.parametrize("name", SEEING)
def test_a_row_in_a_pack_has_the_loss_that_the_model_itself_gives_it(
    name: str, tiny_cache: Path, tmp_path: Path
) -> None:
    rows = rows_that_see(seeing_encoder(name, tiny_cache), tmp_path)
    network = LanguageModelLoss(seeing(name, tiny_cache))
    must_score_exactly(network, rows)
    must_pack_exactly(network, rows, 1024)


def test_a_model_that_sees_otherwise_is_refused(tiny_cache: Path, tmp_path: Path) -> None:
    """The check looks at pictures: one whose features are others does not pass."""
    from fieldtune.errors import UserError

    rows = rows_that_see(seeing_encoder("llava", tiny_cache), tmp_path)
    model = seeing("llava", tiny_cache)
    model.lm_head.weight.data.mul_(30)
    model.model.multi_modal_projector.linear_2.weight.data.mul_(30)
    network = LanguageModelLoss(model)
    look = model.model.get_image_features

    def other(*arguments: Any, **named: Any) -> Any:
        found = look(*arguments, **named)
        found.pooler_output = [-one for one in found.pooler_output]
        return found

    must_pack_exactly(network, rows, 1024)
    model.get_image_features = other  # what we call; the model's own forward calls that of its inner model
    with pytest.raises(UserError, match="other losses in a pack than alone"):
        must_pack_exactly(network, rows, 1024)


def test_equal_pictures_have_equal_ids_and_different_ones_never(tiny_cache: Path, tmp_path: Path) -> None:
    encoder = seeing_encoder("llava", tiny_cache)
    one = write_picture(tmp_path / "one.png", (60, 60), 1)
    same = write_picture(tmp_path / "same.png", (60, 60), 1)
    other = write_picture(tmp_path / "other.png", (60, 60), 2)
    first, second, third = (
        encoder.row(turns([Media("image", str(path))], "What?", "It.")) for path in (one, same, other)
    )
    assert np.array_equal(first.ids, second.ids)
    assert not set(first.ids[first.ids < 0]) & set(third.ids[third.ids < 0])
    assert [shown.path for shown in first.media] == [one] and first.media[0].places == 49
    assert (first.ids < 0).sum() == 49 and not first.trained[first.ids < 0].any()


def test_nothing_of_a_picture_is_trained_with_the_prompt(tiny_cache: Path, tmp_path: Path) -> None:
    encoder = seeing_encoder("qwen2vl", tiny_cache)
    row = encoder.row(turns(pictures(tmp_path)[:1], "What?", "It."), train_on_prompt=True)
    assert (row.trained == (row.ids >= 0)).all()


def test_positions_are_those_of_the_model(tiny_cache: Path, tmp_path: Path) -> None:
    encoder, model = seeing_encoder("qwen2vl", tiny_cache), seeing("qwen2vl", tiny_cache)
    media = pictures(tmp_path)
    for some in (media[:1], media[1:], []):
        row = encoder.row(turns(some, "What are they?", "Shapes."))
        inputs = plain_inputs(torch.from_numpy(row.ids.astype(np.int64))[None])
        if some:
            inputs.pop("pixel_values")
            wanted = model.model.get_rope_index(**inputs)[0][:, 0]
        else:
            wanted = torch.arange(len(row.ids)).expand(3, -1)
        assert row.positions is not None and torch.equal(torch.from_numpy(row.positions), wanted)


@pytest.mark.parametrize("name", SEEING)
def test_answers_are_those_of_the_model_itself(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    """Alone, several at a time, and from a common beginning with a picture in it."""
    encoder, model = seeing_encoder(name, tiny_cache), seeing(name, tiny_cache)
    model.get_output_embeddings().weight.data.mul_(20)
    media = pictures(tmp_path)
    asked = [turns([one], question, "")[:1] for one in media[:2] for question in QUESTIONS]
    asked.append(turns([], QUESTIONS[0], "")[:1])
    prompts = [encoder.prompt(one) for one in asked]
    alone = []
    for prompt in prompts:
        inputs = plain_inputs(torch.tensor([prompt]))
        made = model.generate(
            **inputs, attention_mask=torch.ones_like(inputs["input_ids"]), max_new_tokens=6, do_sample=False
        )
        alone.append(encoder.tokenizer.decode(made[0, len(prompt) :].tolist()).strip())
    sampling = Sampling(6)
    assert [one.text for one in generate(model, encoder.tokenizer, prompts, sampling)] == alone
    for slots in (1, 3):
        found = answer_all(model, encoder.tokenizer, [Question(prompt) for prompt in prompts], sampling, slots)
        assert [one.text for one in found] == alone
    same = answer_all(model, encoder.tokenizer, [Question(prompt) for prompt in prompts[:3]], sampling, 3)
    assert [one.text for one in same] == alone[:3]


def test_a_kept_prompt_is_taken_over_with_its_picture(tiny_cache: Path, tmp_path: Path) -> None:
    encoder, model = seeing_encoder("qwen2vl", tiny_cache), seeing("qwen2vl", tiny_cache).eval()
    first, second = (encoder.prompt(turns(pictures(tmp_path)[:1], question, "")[:1]) for question in QUESTIONS[:2])
    kept, wanted = Prefixes(1000), Prompt(second)
    with torch.inference_mode():
        prompt = Prompt(first)
        prompt.advance(model, 1000)
        kept.keep(prompt)
        logits = wanted.advance(model, 1000)
        again = Prompt(second)
        assert kept.begin(again) > 25
        while (found := again.advance(model, 4)) is None:
            pass
    assert logits is not None and torch.allclose(found, logits, atol=1e-5)


def test_what_cannot_be_shown_is_said(tiny_cache: Path, tmp_path: Path) -> None:
    encoder = seeing_encoder("llava", tiny_cache)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    long = write_picture(tmp_path / "long.png", (8, 2000), 0)
    shown = Media("image", str(pictures(tmp_path)[0].path))
    cases = [
        (encoder, [Media("image", str(tmp_path / "none.png"))], "none.png is not a picture that can be read"),
        (encoder, [Media("image", str(tmp_path / "broken.png"))], "broken.png is not a picture that can be read"),
        (encoder, [Media("video", str(tmp_path / "film.mp4"))], "a video; this model is shown images only"),
        (seeing_encoder("qwen2vl", tiny_cache), [Media("image", str(long))], "aspect ratio"),
    ]
    for one, media, wanted in cases:
        with pytest.raises(EncodeError, match=wanted):
            one.row(turns(media, "What?", "It."))
    with pytest.raises(EncodeError, match="special token"):
        encoder.row(turns([shown], "What is <image>?", "It."))
    with pytest.raises(EncodeError, match="not the user's"):
        encoder.row((Message("user", ("Draw.",)), Message("assistant", (shown, "It."))))
    blind = Encoder(
        load_tokenizer(TokenizerKind.from_weights, ensure_tiny("mistral", tiny_cache)), TemplateKind.chat, None
    )
    with pytest.raises(EncodeError, match="this model does not see"):
        blind.row(turns([shown], "What?", "It."))
    assert load_reader(ensure_tiny("mistral", tiny_cache), blind.tokenizer) is None
    assert tiny_config("mistral").weights == "tiny:mistral"


def test_a_picture_is_turned_as_its_file_says(tmp_path: Path, tiny_cache: Path) -> None:
    with Image.open(write_picture(tmp_path / "lying.png", (40, 90), 0)) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned.jpg", exif=exif)
    row = seeing_encoder("qwen2vl", tiny_cache).row(
        turns([Media("image", str(tmp_path / "turned.jpg"))], "What?", "It.")
    )
    inputs = plain_inputs(torch.from_numpy(row.ids.astype(np.int64))[None])
    assert inputs["image_grid_thw"][0, 1] > inputs["image_grid_thw"][0, 2]


def test_a_template_that_ends_with_a_blank_is_trained_without_it(tiny_cache: Path, tmp_path: Path) -> None:
    """LLaVA 1.5 writes `ASSISTANT: It. `; its models end an answer right after its last word."""
    encoder = seeing_encoder("llava", tiny_cache)
    row = encoder.row(turns(pictures(tmp_path)[:1], "What?", "It."))
    spoken = [int(index) for index in row.ids[row.trained]]
    assert spoken == [*encoder.tokenizer.encode(" It."), encoder.tokenizer.end_id]
    assert row.ids[0] == encoder.tokenizer.native.bos_token_id
    assert len(CONTENTS.in_order(row.ids)) == 1
