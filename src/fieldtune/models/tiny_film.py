"""A small Mobile-VideoGPT with random weights, in the released layout: the real code offline, 72 places a film."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fieldtune.models.mobile_videogpt.shapes import TINY
from fieldtune.models.tiny_vision import gpt2_tokenizer

NAME = "mobile_videogpt"

# Of Qwen/Qwen2.5-0.5B-Instruct, without its tools.
QWEN25_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
SPECIALS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def make(folder: Path) -> None:
    """Write weights and tokenizer into a folder."""
    import shutil

    import torch

    from fieldtune.models.mobile_videogpt.checkpoint import write_checkpoint
    from fieldtune.models.mobile_videogpt.network import MobileVideoGPT

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = gpt2_tokenizer(SPECIALS, QWEN25_TEMPLATE, folder)
        language = {
            **TINY.language,
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "max_position_embeddings": 4096,
            "eos_token_id": tokenizer.eos_token_id,
            "initializer_range": 0.1,  # with the 0.02 of wide models so narrow a one learns three times as slowly
        }
        model = MobileVideoGPT(replace(TINY, language=language))
    beside = folder / "weights"
    write_checkpoint(model, beside)
    for path in beside.iterdir():
        shutil.move(path, folder / path.name)
    beside.rmdir()
