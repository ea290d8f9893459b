"""Memory that llama.cpp, and so Ollama, takes to run a GGUF file: arithmetic on its size and the model's shape."""

from __future__ import annotations

from typing import Any

KEY_BYTES = 2  # keys and values are held in fp16
BATCH = 512  # prompt tokens a pass, of which the logits are held in fp32


def footprint(file_bytes: int, settings: Any, context: int) -> dict[str, int]:
    """Bytes by part: the weights as they lie in the file, keys and values of `context` tokens, the logits' buffer.

    settings: the transformers configuration of the model.
    """
    heads = settings.num_attention_heads
    width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    kept = getattr(settings, "num_key_value_heads", None) or heads
    return {
        "weights": file_bytes,
        "keys_and_values": 2 * settings.num_hidden_layers * kept * width * KEY_BYTES * context,
        "logits": settings.vocab_size * BATCH * 4,
    }
