"""Tiny models and tokenizers that tests make on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from fieldtune.config import AdapterConfig, AdapterKind
from fieldtune.data.encode import Encoded
from fieldtune.models.adapters import adapt


def tiny_gpt2(vocabulary: int = 97, *, dropout: float = 0.0, seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=64, n_embd=32, n_layer=2, n_head=4, **rates))


def tiny_llama(vocabulary: int = 97, *, seed: int = 0, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
    )


def tied_llama() -> LlamaForCausalLM:
    """Embedding and output head share their weights, as in SmolLM2."""
    return tiny_llama(tied=True)


def tiny_mistral() -> MistralForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MistralForCausalLM(MistralConfig(vocab_size=97, num_key_value_heads=2, sliding_window=None, **shape))


def lora_llama() -> Any:
    return _with_moved_adapter(tiny_llama())


def lora_gpt2() -> Any:
    return _with_moved_adapter(tiny_gpt2())


def _with_moved_adapter(model: Any) -> Any:
    """An adapter as PEFT makes it changes nothing; a trained one does."""
    adapted = adapt(model, AdapterConfig(kind=AdapterKind.lora, rank=4, alpha=8.0))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapted


def rows_alike(vocabulary: int = 97, seed: int = 0) -> list[Encoded]:
    """Nine rows of random ids that begin alike at several depths; one is there twice, one is the beginning of another,
    and tokens of the common beginnings are trained too."""
    random = np.random.default_rng(seed)
    stem, branch = random.integers(0, vocabulary, 12), random.integers(0, vocabulary, 6)
    rows = []
    for number in range(7):
        head = [stem, branch] if number % 3 == 0 else [stem[:9]] if number % 3 == 1 else [stem]
        ids = np.concatenate([*head, random.integers(0, vocabulary, 3 + 2 * number)]).astype(np.int32)
        trained = random.random(len(ids)) < 0.4
        trained[-2] = True
        rows.append(Encoded(ids, trained))
    return [*rows, rows[3], Encoded(rows[6].ids[:20], rows[6].trained[:20])]


def rows_of_lengths(lengths: Sequence[int], vocabulary: int = 97, seed: int = 0) -> list[Encoded]:
    """Rows of random ids, of which the last part (of varied size) is trained."""
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        trained = np.zeros(length, dtype=np.bool_)
        trained[length - int(random.integers(1, length)) :] = True
        rows.append(Encoded(random.integers(0, vocabulary, length).astype(np.int32), trained))
    return rows
