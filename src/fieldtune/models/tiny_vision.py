"""Small image-language models with random weights, of the families that fieldtune fine-tunes: the real code offline.

Chat templates, special tokens and image processors are those of the released models; towers, tiles and vocabulary are
small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldtune.models.tokenizer import GPT2_END_ID, Gpt2Tokenizer

# Of llava-hf/llava-1.5-7b-hf. It leaves the end token to whoever trains.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# Of llava-hf/llava-v1.6-mistral-7b-hf.
LLAVA_NEXT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + message['content'][0]['text'] "
    "+ '\n<</SYS>>\n\n' }}{% elif message['role'] == 'user' %}{{ '[INST] ' }}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{# Render all text next #}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] }}{% endfor %}{{' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'][0]['text'] + '</s> '}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)

# Of llava-hf/llava-onevision-qwen2-0.5b-ov-hf.
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{# Render all video then #}{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}"
    "{{ '<video>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Of HuggingFaceTB/SmolVLM2-2.2B-Instruct, as transformers has it for videos.
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}"
    "{% elif line['type'] == 'video' %}{{ '<video>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

# Of Qwen/Qwen2-VL-2B-Instruct.
QWEN2VL_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: "
    "{% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: "
    "{% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _llava(ids: dict[str, int]) -> tuple[dict[str, Any], Any]:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    settings = {"vision_config": CLIP, "image_token_index": ids["<image>"], "image_seq_length": 49}
    return settings, LlavaImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def _llava_next(ids: dict[str, int]) -> tuple[dict[str, Any], Any]:
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    settings = {"vision_config": CLIP, "image_token_index": ids["<image>"], "image_grid_pinpoints": GRIDS}
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=GRIDS
    )
    return settings, processor


def _onevision(ids: dict[str, int]) -> tuple[dict[str, Any], Any]:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    tower = {**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
    settings = {
        "vision_config": tower,
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "image_grid_pinpoints": GRIDS,
        "vision_aspect_ratio": "anyres_max_2",
    }
    return settings, LlavaOnevisionImageProcessorPil(size={"height": 56, "width": 56}, image_grid_pinpoints=GRIDS)


def _smolvlm(ids: dict[str, int]) -> tuple[dict[str, Any], Any]:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {
        "vision_config": {**tower, "image_size": 32, "patch_size": 8},
        "image_token_id": ids["<image>"],
        "scale_factor": 2,
    }
    return settings, SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})


def _qwen2vl(ids: dict[str, int]) -> tuple[dict[str, Any], Any]:
    return _qwen({"depth": 2, "embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 4, "patch_size": 8}, ids)


def _qwen25vl(ids: dict[str, int]) -> tuple[dict[str, Any], Any]:
    tower = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64}
    windows = {"patch_size": 8, "window_size": 32, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    return _qwen({**tower, **windows}, ids)


def _qwen(tower: dict[str, Any], ids: dict[str, int]) -> tuple[dict[str, Any], Any]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    settings = {
        "vision_config": tower,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    return settings, Qwen2VLImageProcessorPil(patch_size=8, size={"shortest_edge": 32 * 32, "longest_edge": 80 * 80})


CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 8,
    "projection_dim": 64,
}
GRIDS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
QWEN_FILMS = {"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}


@dataclass(frozen=True, slots=True)
class Family:
    """model_type: transformers' name. text: that of the language model. specials: the begin and end token first.
    parts: makes the rest of the settings and the image processor, of the ids of the special tokens."""

    model_type: str
    text: dict[str, Any]
    template: str
    specials: tuple[str, ...]
    parts: Callable[[dict[str, int]], tuple[dict[str, Any], Any]]
    begins: bool = False  # the tokenizer itself puts the begin token before a text
    films: dict[str, Any] | None = None  # settings of the video processor, where they are not the image processor's


_TILES = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))
_QWEN = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
FAMILIES = {
    "llava": Family(
        "llava", {"model_type": "llama"}, LLAVA_TEMPLATE, ("<s>", "</s>", "<unk>", "<image>", "<pad>"), _llava, True
    ),
    "llava_next": Family(
        "llava_next",
        {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None},
        LLAVA_NEXT_TEMPLATE,
        ("<s>", "</s>", "<unk>", "<image>", "<pad>"),
        _llava_next,
        True,
    ),
    "onevision": Family(
        "llava_onevision",
        {"model_type": "qwen2", "num_key_value_heads": 2},
        ONEVISION_TEMPLATE,
        (*_QWEN[:2], "<image>", "<video>"),
        _onevision,
    ),
    "qwen2vl": Family(
        "qwen2_vl",
        {"model_type": "qwen2_vl_text", "num_key_value_heads": 2, "rope_parameters": MROPE},
        QWEN2VL_TEMPLATE,
        (*_QWEN[:2], "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        _qwen2vl,
        films=QWEN_FILMS,
    ),
    "qwen25vl": Family(
        "qwen2_5_vl",
        {"model_type": "qwen2_5_vl_text", "num_key_value_heads": 2, "rope_parameters": MROPE},
        QWEN2VL_TEMPLATE,  # they have the same
        (*_QWEN[:2], "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        _qwen25vl,
        films=QWEN_FILMS,
    ),
    "smolvlm": Family(
        "smolvlm",
        {"model_type": "llama", "num_key_value_heads": 2},
        SMOLVLM_TEMPLATE,
        ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", *_TILES),
        _smolvlm,
    ),
}


def make(name: str, folder: Path) -> None:
    """Write the model of a family of `FAMILIES` into a folder, in the hub's form."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from fieldtune.models.film_frames import SETTINGS

    family = FAMILIES[name]
    tokenizer = gpt2_tokenizer(family.specials, family.template, folder, begins=family.begins)
    parts, processor = family.parts({text: tokenizer.convert_tokens_to_ids(text) for text in family.specials})
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **family.text,
    }
    settings = AutoConfig.for_model(family.model_type, text_config=text, **parts)
    processor.save_pretrained(str(folder))
    if family.films is not None:
        (folder / SETTINGS).write_text(json.dumps(family.films), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(settings, dtype=torch.float32).save_pretrained(str(folder))


def gpt2_tokenizer(specials: tuple[str, ...], template: str, folder: Path, *, begins: bool = False) -> Any:
    """GPT-2's vocabulary with special tokens (the begin and end token first) and a chat template, in the folder.

    begins: it puts the begin token before a text.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    Gpt2Tokenizer().save(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    begin, end, *others = specials
    pad = "<pad>" if "<pad>" in others else end
    tokenizer.add_special_tokens({"bos_token": begin, "eos_token": end, "pad_token": pad})
    tokenizer.add_special_tokens({"additional_special_tokens": [one for one in others if one != pad]})
    assert len(tokenizer) == GPT2_END_ID + 1 + len(specials)
    if begins:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
        )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    return tokenizer
