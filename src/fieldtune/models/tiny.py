"""Small models of the families that fieldtune fine-tunes, with random weights: the real code without a download.

Their chat templates are those of the released models, to the letter in what they write for conversations (Mistral's
part for tools is left out). Their vocabulary is GPT-2's with the family's special tokens.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from fieldtune.models import tiny_film, tiny_vision
from fieldtune.models.tokenizer import GPT2_END_ID, Gpt2Tokenizer

FORM = 3  # part of the folder's name: raised when what is made here changes

# Of mistralai/Mistral-7B-Instruct-v0.3: a system text stands before the last message, and only if that is a user's.
MISTRAL_TEMPLATE = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate \
user/assistant/user/assistant/...") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# Of google/gemma-2b-it and google/gemma-2-2b-it: a system message is refused.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Family:
    """model_type: transformers' name. shape: beside what all of them have. specials: the begin and end token first."""

    model_type: str
    template: str
    specials: tuple[str, ...]
    shape: dict[str, Any] = field(default_factory=dict)


GEMMA = ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>")
GEMMA_SHAPE = {"num_key_value_heads": 1, "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}
FAMILIES = {
    "mistral": Family(
        "mistral",
        MISTRAL_TEMPLATE,
        ("<s>", "</s>", "<unk>", "[INST]", "[/INST]"),
        {"num_key_value_heads": 2, "sliding_window": None},
    ),
    "gemma": Family("gemma", GEMMA_TEMPLATE, GEMMA, GEMMA_SHAPE),
    "gemma2": Family(
        "gemma2", GEMMA_TEMPLATE, GEMMA, {**GEMMA_SHAPE, "query_pre_attn_scalar": 32, "sliding_window": 1024}
    ),
}


def ensure_tiny(name: str, cache: Path) -> Path:
    """The folder, in the hub's form, of a small model of `FAMILIES`, `tiny_vision` or `tiny_film`; made once."""
    target = cache / "tiny" / f"{name}-{FORM}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / "config.json").exists():
            beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                if name in FAMILIES:
                    _make(FAMILIES[name], beside)
                elif name == tiny_film.NAME:
                    tiny_film.make(beside)
                else:
                    tiny_vision.make(name, beside)
                shutil.rmtree(target, ignore_errors=True)
                beside.rename(target)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    return target


def _make(family: Family, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    Gpt2Tokenizer().save(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    begin, end, *others = family.specials
    tokenizer.add_special_tokens(
        {"bos_token": begin, "eos_token": end, "pad_token": end if "<pad>" not in others else "<pad>"}
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [one for one in others if one != "<pad>"]})
    tokenizer.chat_template = family.template
    tokenizer.save_pretrained(str(folder))
    settings = AutoConfig.for_model(
        family.model_type,
        vocab_size=GPT2_END_ID + 1 + len(family.specials),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **family.shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(settings, dtype=torch.float32).save_pretrained(str(folder))
