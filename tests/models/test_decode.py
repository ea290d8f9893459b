"""Answers that begin and end at any step of a batch: each is the answer that it would be alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from fieldtune.models.decode import Chooser, Prompt, RaggedBatch, vocabulary_width
from fieldtune.models.generate import Sampling

from .tiny import lora_gpt2, lora_llama, tiny_gpt2, tiny_llama

PROMPTS = [[1, 2, 3], [5] * 20, [44, 45, 46, 47, 48, 49, 50], [9]]
BEGIN = [0, 3, 3, 9]  # the step before which a prompt joins
TOKENS = [14, 4, 12, 7]  # of its answer


def sliding_mistral() -> Any:
    """Sees six tokens back."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MistralForCausalLM(MistralConfig(vocab_size=97, num_key_value_heads=2, sliding_window=6, **shape))


def lively(make: Callable[[], Any]) -> Any:
    """Weights large enough that the next words depend on the words before."""
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


def taken(model: Any, ids: Sequence[int], tokens: int = 5) -> tuple[Prompt, torch.Tensor]:
    """A prompt through the model, some tokens at a time, and the logits after it."""
    prompt = Prompt(ids)
    while (logits := prompt.advance(model, tokens)) is None:
        pass
    return prompt, logits


def together(model: Any, choosers: Sequence[Chooser]) -> list[list[int]]:
    """The answers to `PROMPTS`, each begun at its own step."""
    batch, rows = RaggedBatch(model), list[int]()
    answers: list[list[int]] = [[] for _ in PROMPTS]
    for step in range(max(BEGIN) + max(TOKENS)):
        for number, begin in enumerate(BEGIN):
            if begin == step:
                prompt, logits = taken(model, PROMPTS[number])
                batch.join(prompt)
                answers[number].append(choosers[number].pick(logits))
                rows.append(number)
        if not rows:
            continue
        logits = batch.step([answers[number][-1] for number in rows])
        for row, number in enumerate(rows):
            answers[number].append(choosers[number].pick(logits[row]))
        staying = [row for row, number in enumerate(rows) if len(answers[number]) < TOKENS[number]]
        batch.keep(staying)
        rows = [rows[row] for row in staying]
        assert len(batch) == len(rows)
    return answers


def alone(model: Any, number: int, chooser: Chooser) -> list[int]:
    """By plain transformers code, without a cache."""
    ids = list(PROMPTS[number])
    for _ in range(TOKENS[number]):
        with torch.no_grad():
            ids.append(chooser.pick(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()))
    return ids[len(PROMPTS[number]) :]


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama, sliding_mistral, lora_gpt2, lora_llama])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_is_answered_as_alone(make: Callable[[], Any], temperature: float) -> None:
    model = lively(make)

    def choosers() -> list[Chooser]:
        return [Chooser(Sampling(99, temperature, 20, seed, 0.9)) for seed in range(len(PROMPTS))]

    found = together(model, choosers())
    assert found == [alone(model, number, chooser) for number, chooser in enumerate(choosers())]
    assert len({tuple(answer[:4]) for answer in found}) > 1  # the words before matter


def test_a_prompt_in_pieces_is_the_same_prompt() -> None:
    model = lively(tiny_llama)
    whole = taken(model, PROMPTS[1], 99)[1]
    assert torch.allclose(taken(model, PROMPTS[1], 1)[1], whole, atol=1e-4)
    assert torch.allclose(taken(model, PROMPTS[1], 7)[1], whole, atol=1e-4)


def test_width() -> None:
    assert vocabulary_width(tiny_llama(123).eval()) == 123


def drawn(sampling: Sampling, count: int = 4000) -> Counter[int]:
    chooser = Chooser(sampling)
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    return Counter(chooser.pick(logits) for _ in range(count))


def test_draws_follow_the_logits() -> None:
    shares = {token: number / 4000 for token, number in drawn(Sampling(1, 1.0, 0)).items()}
    assert all(abs(shares[token] - (token + 1) / 10) < 0.04 for token in range(4))  # five standard deviations
    colder = drawn(Sampling(1, 0.5, 0))
    assert abs(colder[3] / 4000 - 0.16 / 0.3) < 0.04


def test_top_k_and_top_p_keep_the_likeliest() -> None:
    assert set(drawn(Sampling(1, 1.0, 2))) == {2, 3}
    assert set(drawn(Sampling(1, 1.0, 0, top_p=0.7))) == {2, 3}  # 0.4 + 0.3 reach it
    assert set(drawn(Sampling(1, 1.0, 0, top_p=0.71))) == {1, 2, 3}
    assert set(drawn(Sampling(1, 1.0, 0, top_p=0.01))) == {3}
    assert set(drawn(Sampling(1, 0.0))) == {3}


def test_the_seed_decides() -> None:
    assert drawn(Sampling(1, 1.0, 0, seed=5), 50) == drawn(Sampling(1, 1.0, 0, seed=5), 50)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn(Sampling(1, 1.0, 0, seed=6), 50)
    assert torch.equal(torch.get_rng_state(), state)
