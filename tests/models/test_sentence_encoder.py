"""The real sentence encoder, where its package is installed."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from fieldtune.models import sentence_encoder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(sentence_encoder.MODULE) is None, reason=f"needs the package {sentence_encoder.MODULE}"
)

BENT = "Bend your knees more before you throw."
SAME = "Lower your hips by flexing the knees ahead of the throw."
OTHER = "The invoice is due at the end of the month."


def test_meaning_and_not_words_makes_texts_alike() -> None:
    itself, same, other = sentence_encoder.similarities([(BENT, BENT), (BENT, SAME), (BENT, OTHER)])
    assert itself == pytest.approx(1, abs=1e-5)
    assert same > 0.5 > 0.2 > other
    assert sentence_encoder.similarities([]) == []


def test_a_text_is_the_same_alone_and_in_a_batch() -> None:
    texts = [BENT, SAME, OTHER * 30, "", "Yes."] * 10
    together = sentence_encoder.embeddings(texts)
    assert together.shape == (50, 384) and torch.allclose(together.norm(dim=1), torch.ones(50), atol=1e-5)
    for index in range(5):
        torch.testing.assert_close(sentence_encoder.embeddings([texts[index]])[0], together[index], atol=1e-5, rtol=0)
