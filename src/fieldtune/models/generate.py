"""Answers: greedy or sampled, with a KV cache, several prompts at a time; each stops by itself at the end token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fieldtune.data.media import plain_inputs
from fieldtune.models.constrained import ConstrainedLogits
from fieldtune.models.loss import unwrapped
from fieldtune.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0: greedy. max_new_tokens: tokens of an answer at most. seed: of the sampled tokens.

    top_k: tokens that are drawn from, the likeliest; 0: all. top_p: of these, the likeliest that have this probability
    together (arXiv 1904.09751).
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 50
    seed: int = 0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """text: without special tokens. tokens: generated, without the end token. ended: by itself, not by the limit."""

    text: str
    tokens: int
    ended: bool


@torch.no_grad()  # not inference mode: it would leave its mark on weights that ranks gather meanwhile, for training too
def generate(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    in_step: bool = False,
    schema: Mapping[str, Any] | None = None,
) -> list[Answer]:
    """An answer to each prompt (token ids, below 0 for the places of pictures).

    The model's mode and the global random state are left as they were.

    in_step: all ranks answer together, as each holds a part of the weights; who is done first goes on computing.
    schema: a JSON schema that every answer is held to; one that is cut off by its length is not whole.
    A prompt that fills the context leaves no room and is a ValueError; a shorter room shortens the answer.
    """
    inner = unwrapped(model)
    known = inner.config.get_text_config().max_position_embeddings
    room = known - max(len(prompt) for prompt in prompts)
    if room < 1:
        raise ValueError(f"a prompt fills the model's {known} positions")
    device = next(inner.parameters()).device
    width = max(len(prompt) for prompt in prompts)
    # Padded on the left, so that every answer starts in the same column; the mask hides the padding.
    ids = torch.full((len(prompts), width), tokenizer.pad_id)
    mask = torch.zeros_like(ids)
    for number, prompt in enumerate(prompts):
        ids[number, width - len(prompt) :] = torch.tensor(prompt)
        mask[number, width - len(prompt) :] = 1
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(sampling.seed)
            output = model.generate(
                **{name: value.to(device) for name, value in plain_inputs(ids).items()},
                attention_mask=mask.to(device),
                generation_config=_settings(tokenizer, sampling, min(sampling.max_new_tokens, room)),
                synced_gpus=in_step,
                logits_processor=[] if schema is None else [ConstrainedLogits(tokenizer, schema, width)],
            )
    finally:
        model.train(was_training)
    return [_answer(tokenizer, row[width:].tolist()) for row in output]


def _settings(tokenizer: Tokenizer, sampling: Sampling, max_new_tokens: int) -> Any:
    from transformers import GenerationConfig

    sampled = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(tokenizer.stop_ids),
        pad_token_id=tokenizer.pad_id,
        use_cache=True,
        **(sampled if sampling.temperature > 0 else {"do_sample": False}),
    )


def _answer(tokenizer: Tokenizer, ids: list[int]) -> Answer:
    ends = [position for position, index in enumerate(ids) if index in tokenizer.stop_ids]
    kept = ids[: ends[0]] if ends else ids
    return Answer(tokenizer.decode(kept).strip(), len(kept), bool(ends))
