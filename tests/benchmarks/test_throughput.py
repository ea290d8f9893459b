"""The throughput benchmark's ideal, on cases that are worked out by hand, and its rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fieldtune.config import AdapterConfig, AdapterKind
from fieldtune.data.encode import Encoded
from fieldtune.models.adapters import adapt
from tests.models.tiny import tiny_gpt2, tiny_llama

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from throughput_parts.ideal import Least, Work, least, work_of
from throughput_parts.job import padded_tokens, read_rows, write_rows
from throughput_parts.loop import IGNORED, own_labels
from throughput_parts.texts import ANSWER_TOKENS, CONTEXT_TOKENS, SYSTEM_TOKENS, instructions, long_prefixes


def row(ids: list[int], trained: list[int]) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int32), np.array(trained, dtype=np.bool_))


TWO_BRANCHES = [row([1, 2, 3, 4], [0, 0, 1, 1]), row([1, 2, 5], [0, 0, 1])]


def test_least_of_two_branches() -> None:
    # Prefixes: 1 | 1 2 | 1 2 3 | 1 2 3 4 | 1 2 5. Each sees itself and those before it: 1 + 2 + 3 + 4 + 3.
    # Labels stand after 1 2 (in both rows) and after 1 2 3.
    assert least(TWO_BRANCHES) == Least(tokens=5, attended=13, labeled=2)


def test_least_of_rows_that_share_nothing_or_everything() -> None:
    apart = [row([1, 2], [0, 1]), row([2, 2], [0, 1])]
    assert least(apart) == Least(tokens=4, attended=6, labeled=2)
    # A first token is predicted from nothing, so its label is none.
    assert least([row([7, 8, 9], [1, 1, 1])] * 3) == Least(tokens=3, attended=6, labeled=2)


def test_flops_by_hand() -> None:
    work = Work(trained=10, frozen=100, head=50, head_trained=False, attention=4)
    # 5 tokens: 10 weights x 3 products and 100 x 2; 13 attended: 6 products of 4; 2 labels: 50 weights x 2.
    assert work.flops(least(TWO_BRANCHES)) == 2 * (5 * (10 * 3 + 100 * 2) + 13 * 6 * 4 + 2 * 50 * 2)


def test_work_of_a_gpt2() -> None:
    work = work_of(tiny_gpt2())
    # Two layers of width 32: queries, keys and values, attention's output, two matrices of four times the width.
    layer = 32 * 96 + 32 * 32 + 2 * 32 * 128
    assert work == Work(trained=2 * layer, frozen=0, head=97 * 32, head_trained=True, attention=2 * 32)


def test_work_with_adapters() -> None:
    model = adapt(tiny_llama(), AdapterConfig(kind=AdapterKind.lora, rank=4))
    # Queries and output 32 x 32, keys and values 32 x 16 (half of the heads), three matrices 32 x 64; rank 4 beside.
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    beside = 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    assert work_of(model) == Work(
        trained=2 * beside, frozen=2 * layer, head=97 * 32, head_trained=False, attention=2 * 32
    )


def test_padded_tokens() -> None:
    rows = [row([1] * length, [1] * length) for length in (3, 9, 4, 8)]
    assert padded_tokens(rows, 4) == 4 * 9
    assert padded_tokens(rows, 2) == 2 * 9 + 2 * 4
    assert padded_tokens(rows, 1) == 3 + 9 + 4 + 8


def test_labels_are_what_the_loss_counts() -> None:
    first_trained = row([7, 8, 9], [1, 0, 1])
    assert own_labels(first_trained) == [IGNORED, IGNORED, 9]
    assert first_trained.supervised == 1


def test_rows_come_back(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.npz", TWO_BRANCHES)
    for before, after in zip(TWO_BRANCHES, read_rows(tmp_path / "rows.npz"), strict=True):
        assert before.ids.tolist() == after.ids.tolist()
        assert before.trained.tolist() == after.trained.tolist()


def test_generated_texts() -> None:
    def words(text: str) -> int:
        return len(text.split())

    assert instructions(20, 1) == instructions(20, 1) != instructions(20, 2)
    rows = long_prefixes(3, 1, words)
    assert len({example.messages[0].text for example in rows}) == 1
    assert len({example.messages[1].text for example in rows}) == 3
    for message, wanted in zip(rows[0].messages, (SYSTEM_TOKENS, CONTEXT_TOKENS, ANSWER_TOKENS), strict=True):
        assert words(message.text) == pytest.approx(wanted, abs=30)
