"""Tiny models and tokenizers that tests make on the spot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fieldtune.data.encode import Encoded


def tiny_gpt2(vocabulary: int = 97, *, dropout: float = 0.0, seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=64, n_embd=32, n_layer=2, n_head=4, **rates))


def tiny_llama(vocabulary: int = 97, *, seed: int = 0) -> LlamaForCausalLM:
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
        )
    )


def rows_of_lengths(lengths: Sequence[int], vocabulary: int = 97, seed: int = 0) -> list[Encoded]:
    """Rows of random ids, of which the last part (of varied size) is trained."""
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        trained = np.zeros(length, dtype=np.bool_)
        trained[length - int(random.integers(1, length)) :] = True
        rows.append(Encoded(random.integers(0, vocabulary, length).astype(np.int32), trained))
    return rows
