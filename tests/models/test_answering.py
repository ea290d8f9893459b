"""Many answers, a few at a time: each is what the model says to its prompt alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fieldtune.errors import UserError
from fieldtune.models.answering import Question, answer_all
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.tokenizer import Gpt2Tokenizer

from .test_decode import lively
from .tiny import tiny_gpt2, tiny_llama

STEM = [7, 300, 41, 9]
PROMPTS = [[*STEM, 1], [*STEM, 5, 8, 2, 900], [*STEM, 44, 45], STEM, [*STEM, 1, 1], [*STEM, 1]]
SCHEMA = {
    "type": "object",
    "properties": {"rest": {"type": "boolean"}},
    "required": ["rest"],
    "additionalProperties": False,
}


def big(make: Callable[..., Any]) -> Any:
    return lively(lambda: make(Gpt2Tokenizer().size))


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_each_answer_is_that_of_the_prompt_alone(make: Callable[..., Any], slots: int) -> None:
    model, tokenizer = big(make), Gpt2Tokenizer()
    alone = [generate(model, tokenizer, [prompt], Sampling(9))[0] for prompt in PROMPTS]
    ids = tokenizer.encode(alone[1].text)
    tokenizer.stop_ids = frozenset({*tokenizer.stop_ids, ids[len(ids) // 2]})  # so that answers end at different steps
    alone = [generate(model, tokenizer, [prompt], Sampling(9))[0] for prompt in PROMPTS]
    assert len({answer.tokens for answer in alone}) > 1
    done: list[None] = []
    found = answer_all(
        model, tokenizer, [Question(ids) for ids in PROMPTS], Sampling(9), slots, lambda: done.append(None)
    )
    assert found == alone and len(done) == len(PROMPTS)


def test_draws_do_not_depend_on_the_neighbors() -> None:
    model, tokenizer = big(tiny_llama).train(), Gpt2Tokenizer()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    questions, sampling = [Question(ids) for ids in PROMPTS], Sampling(8, 1.0, 40, 5)
    some = answer_all(model, tokenizer, questions, sampling, 3)
    assert some == answer_all(model, tokenizer, questions, sampling, 1)
    assert some[0] != some[5]  # the same prompt, other draws
    assert model.training and torch.equal(torch.get_rng_state(), before)


def test_a_schema_holds_the_answers_that_have_one() -> None:
    model, tokenizer = big(tiny_gpt2), Gpt2Tokenizer()
    questions = [Question(ids, SCHEMA if number % 2 else None) for number, ids in enumerate(PROMPTS)]
    found = answer_all(model, tokenizer, questions, Sampling(30), 4)
    for number, answer in enumerate(found):
        if number % 2:
            bare = "".join(answer.text.split())  # a random model likes blanks, which may cut it off
            assert any(whole.startswith(bare) for whole in ('{"rest":true}', '{"rest":false}')) and len(bare) > 6
        else:
            assert answer == generate(model, tokenizer, [PROMPTS[number]], Sampling(30))[0]


def test_limits() -> None:
    model, tokenizer = tiny_gpt2(Gpt2Tokenizer().size), Gpt2Tokenizer()  # 64 positions
    assert answer_all(model, tokenizer, [], Sampling(4), 2) == []
    short, long = answer_all(model, tokenizer, [Question([1] * 4), Question([1] * 60)], Sampling(10), 2)
    assert short.tokens == 10 and long.tokens == 4
    with pytest.raises(ValueError, match="64 positions"):
        answer_all(model, tokenizer, [Question([1] * 64)], Sampling(4), 2)
    with pytest.raises(UserError, match="JSON schema cannot be used"):
        answer_all(model, tokenizer, [Question([1], {"type": "no such type"})], Sampling(4), 2)
