"""Label probabilities by one shared pass: those of a plain forward pass a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fieldtune.config import Packing, TemplateKind, TokenizerKind
from fieldtune.data.encode import Encoder
from fieldtune.models.label_scores import label_logs, label_row
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.records import Message
from tests.models.byte_model import save_byte_model

LABELS = ("o-goshi", "o-soto-gari", "o-soto-gake", "no technique", "o")
PROMPTS = (
    (Message("system", ("You are a coach.",)), Message("user", ("Which technique is it?",))),
    (Message("user", ("Which?",)), Message("assistant", ("o-goshi",)), Message("user", ("And this?",))),
)


Loaded = tuple[Any, Any, Encoder]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The same model twice: as transformers has it, and one that is measured, whose layers are exchanged."""
    from transformers import LlamaForCausalLM

    folder = save_byte_model(tmp_path_factory.mktemp("bytes"))
    encoder = Encoder(load_tokenizer(TokenizerKind.from_weights, folder), TemplateKind.chat)
    plain_one, measured = (LlamaForCausalLM.from_pretrained(str(folder)).eval() for _ in range(2))
    return plain_one, measured, encoder


def plain(model: Any, encoder: Encoder) -> np.ndarray[Any, Any]:
    """A forward pass of transformers for each prompt and label, and the log-probabilities of the tokens after."""
    found = np.zeros((len(PROMPTS), len(LABELS)))
    for row, prompt in enumerate(PROMPTS):
        before = encoder.prompt(prompt)
        for column, label in enumerate(LABELS):
            answer = [*encoder.tokenizer.encode(label), encoder.tokenizer.end_id]
            with torch.no_grad():
                logs = model(torch.tensor([[*before, *answer]])).logits[0].double().log_softmax(-1)
            found[row, column] = sum(float(logs[len(before) + n - 1, token]) for n, token in enumerate(answer))
    return found


@pytest.mark.parametrize("packing", list(Packing))
def test_it_is_a_plain_forward_pass(loaded: Loaded, packing: Packing) -> None:
    plain_one, measured, encoder = loaded
    wanted, told = plain(plain_one, encoder), [0]

    def count() -> None:
        told[0] += 1

    found = label_logs(LanguageModelLoss(measured), encoder, PROMPTS, LABELS, packing, count)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert told == [2] and np.exp(found).sum(axis=1).max() < 1  # the labels exclude each other


def test_only_the_label_and_its_end_count(loaded: Loaded) -> None:
    *_, encoder = loaded
    row = label_row(encoder, PROMPTS[1], "o-goshi")
    assert row.supervised == len("o-goshi") + 1  # a byte a token; not the answer of the turn before
    assert not row.trained[: len(encoder.prompt(PROMPTS[1]))].any()


def test_no_label_is_the_beginning_of_another(loaded: Loaded) -> None:
    """Of one token and of all its continuations: the end token tells them apart, so the sum stays below 1."""
    plain_one, measured, encoder = loaded
    letters = [chr(code) for code in range(97, 123)]
    found = np.exp(label_logs(LanguageModelLoss(measured), encoder, PROMPTS[:1], ["a", *(f"a{x}" for x in letters)]))
    first = np.exp(plain_first(plain_one, encoder, "a"))
    assert found.sum() <= first + 1e-9


def plain_first(model: Any, encoder: Encoder, letter: str) -> float:
    ids = encoder.prompt(PROMPTS[0])
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    return float(logs[encoder.tokenizer.encode(letter)[0]])
