"""Answers of several prompts at a time are those of each alone; nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fieldtune.models.generate import Sampling, generate
from fieldtune.models.tokenizer import Gpt2Tokenizer

from ..models.tiny import tiny_gpt2, tiny_llama

PROMPTS = [[5, 900, 31], [7], list(range(100, 130)), [44, 45, 46, 47, 48, 49]]
Make = Callable[..., Any]


def lively(make: Make) -> Any:
    """A random model with weights large enough that its next words depend on the words before."""
    model = make(50257).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_together_as_one_by_one(make: Make) -> None:
    model, tokenizer = lively(make), Gpt2Tokenizer()
    alone = [generate(model, tokenizer, [prompt], Sampling(12))[0] for prompt in PROMPTS]
    assert len({answer.text for answer in alone}) == len(PROMPTS)
    assert generate(model, tokenizer, PROMPTS, Sampling(12)) == alone
    assert all(answer.tokens == 12 and not answer.ended for answer in alone)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_each_answer_stops_at_its_own_end(make: Make) -> None:
    model, tokenizer = lively(make), Gpt2Tokenizer()
    ids = model.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=6, do_sample=False, pad_token_id=0)[0, 3:]
    place = next(place for place in range(1, 6) if ids[place] not in ids[:place])
    tokenizer.stop_ids = frozenset({int(ids[place])})
    together = generate(model, tokenizer, PROMPTS, Sampling(12))
    assert together[0].ended and together[0].tokens == place
    assert together[0].text == tokenizer.decode(ids[:place].tolist()).strip()
    assert not all(answer.ended for answer in together)
    assert together == [generate(model, tokenizer, [prompt], Sampling(12))[0] for prompt in PROMPTS]


def test_random_state_and_mode_are_left_alone() -> None:
    model = lively(tiny_gpt2).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sampled = Sampling(10, temperature=1.0, top_k=50, seed=11)
    first = generate(model, Gpt2Tokenizer(), PROMPTS, sampled)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    torch.manual_seed(4)
    assert generate(model, Gpt2Tokenizer(), PROMPTS, sampled) == first  # its own seed decides
    assert generate(model, Gpt2Tokenizer(), PROMPTS, Sampling(10, temperature=1.0, seed=12)) != first


def test_dropout_is_off_while_a_model_in_training_answers() -> None:
    model = lively(lambda vocabulary: tiny_gpt2(vocabulary, dropout=0.5))
    evaluated = generate(model, Gpt2Tokenizer(), PROMPTS, Sampling(8))
    assert generate(model.train(), Gpt2Tokenizer(), PROMPTS, Sampling(8)) == evaluated


def test_a_full_context_leaves_no_room() -> None:
    model = lively(tiny_gpt2)  # of 64 positions
    with pytest.raises(ValueError, match="a prompt fills the model's 64 positions"):
        generate(model, Gpt2Tokenizer(), [[1] * 64], Sampling(1))
    (answer,) = generate(model, Gpt2Tokenizer(), [[1] * 60], Sampling(10))
    assert answer.tokens <= 4
