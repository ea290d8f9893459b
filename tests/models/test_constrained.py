"""Answers held to a schema, with each kind of tokenizer; Pydantic, which wrote the schema, judges them."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field

from fieldtune.errors import UserError
from fieldtune.models.constrained import ANY_OBJECT, Constraint
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.tokenizer import Gpt2Tokenizer, PretrainedTokenizer, Tokenizer

from .byte_model import save_byte_model
from .tiny import tiny_gpt2, tiny_llama

PROMPTS = [[1, 2, 3], [5] * 9, [44, 45, 46, 47]]


class Action(Enum):
    keep = "keep"
    shorten = "shorten"


Day = Annotated[int, Field(ge=-70, le=7)]


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    minutes: int = Field(ge=5, le=480)
    days: list[Day] = Field(min_length=2, max_length=2)
    note: str = Field(max_length=6)
    tags: list[bool] = Field(min_length=1, max_length=2)


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    action: Action
    day: str = Field(pattern=r"^2026-1[0-2]-[0-2][0-9]$")
    change: Change | None


SCHEMA = Plan.model_json_schema()


def tokenizer_gpt2(folder: Path) -> Tokenizer:
    return Gpt2Tokenizer()


def tokenizer_bytes(folder: Path) -> Tokenizer:
    return PretrainedTokenizer(save_byte_model(folder))


@pytest.fixture(params=["gpt2", "bytes", "smollm2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    if request.param == "smollm2":
        return PretrainedTokenizer(request.getfixturevalue("smollm2"))
    return {"gpt2": tokenizer_gpt2, "bytes": tokenizer_bytes}[request.param](tmp_path)


def random_model(width: int) -> Any:
    """A model of noise that says anything, with room for a document of single bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=width, max_position_embeddings=1024, **shape)).eval()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_answer_is_valid(tokenizer: Tokenizer, temperature: float) -> None:
    model = random_model(tokenizer.size + 7)  # as models whose vocabulary is padded to a round number
    for seed in range(2 if temperature else 1):
        sampling = Sampling(400, temperature, top_k=0, seed=seed)
        answers = generate(model, tokenizer, PROMPTS, sampling, schema=SCHEMA)
        assert all(answer.ended for answer in answers)
        for answer in answers:
            Plan.model_validate_json(answer.text)
    assert len({answer.text for answer in answers}) > 1 or temperature == 0


def test_what_is_valid_is_allowed(tokenizer: Tokenizer) -> None:
    """Compact and indented, as a tokenizer itself would split it."""
    change = {"minutes": 480, "days": [3, -70], "note": "é ☃", "tags": [True]}
    keep: dict[str, Any] = {"action": "keep", "day": "2026-11-21", "change": None}
    for value in (keep, {"action": "shorten", "day": "2026-10-01", "change": change}):
        for text in (
            json.dumps(value, ensure_ascii=False, separators=(",", ":")),
            json.dumps(value, ensure_ascii=False),
            json.dumps(value, ensure_ascii=False, indent=2),
        ):
            constraint = Constraint(tokenizer, SCHEMA, tokenizer.size)
            for token in tokenizer.encode(text):
                assert not constraint.ended and constraint.allowed()[token], text
                constraint.take(token)
            assert constraint.ended
            assert set(constraint.allowed().nonzero().flatten().tolist()) == set(tokenizer.stop_ids)


def test_nothing_else_is_allowed(tokenizer: Tokenizer) -> None:
    constraint = Constraint(tokenizer, SCHEMA, tokenizer.size)
    allowed = {tokenizer.decode([token]) for token in constraint.allowed().nonzero().flatten().tolist()}
    assert "{" in allowed and all(text.strip() in ("", "{", '{"') for text in allowed)
    assert not constraint.allowed()[tokenizer.end_id]


def test_together_as_one_by_one() -> None:
    tokenizer = Gpt2Tokenizer()
    model = random_model(tokenizer.size)
    alone = [generate(model, tokenizer, [prompt], Sampling(300), schema=SCHEMA)[0] for prompt in PROMPTS]
    assert generate(model, tokenizer, PROMPTS, Sampling(300), schema=SCHEMA) == alone


def test_an_answer_may_be_cut(tmp_path: Path) -> None:
    tokenizer = tokenizer_bytes(tmp_path)
    (answer,) = generate(random_model(tokenizer.size), tokenizer, [[1]], Sampling(5), schema=SCHEMA)
    assert answer.tokens == 5 and not answer.ended


def test_any_object(tmp_path: Path) -> None:
    tokenizer = tokenizer_bytes(tmp_path)
    answers = generate(random_model(tokenizer.size), tokenizer, PROMPTS, Sampling(900, 1.0, 0), schema=ANY_OBJECT)
    assert all(isinstance(json.loads(answer.text), dict) for answer in answers if answer.ended)
    assert any(answer.ended for answer in answers)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "Invalid type: objekt"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum \\(5\\) is greater than maximum \\(3\\)"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "https://example.org/schema"}, "Default retriever does not fetch resources"),
    ],
)
def test_a_schema_that_cannot_be_followed(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=f"^the JSON schema cannot be used: .*{reason}") as caught:
        Constraint(Gpt2Tokenizer(), schema, 50257)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_without_a_schema_nothing_changes(make: Callable[..., Any]) -> None:
    model, tokenizer = make(50257).eval(), Gpt2Tokenizer()
    assert generate(model, tokenizer, PROMPTS, Sampling(5), schema=None) == generate(
        model, tokenizer, PROMPTS, Sampling(5)
    )
