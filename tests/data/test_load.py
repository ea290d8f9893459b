"""Supervised tokens are counted at loading; rows that cannot be used are left out and named, never all of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from fieldtune.config import TemplateKind
from fieldtune.data.encode import Encoder
from fieldtune.data.load import account, account_line, encode_examples, load_split
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.models.tokenizer import Gpt2Tokenizer
from fieldtune.records import Example, Message, write_jsonl

ENCODER = Encoder(Gpt2Tokenizer(), TemplateKind.alpaca)


def example(identity: str, *texts: str) -> Example:
    """A conversation of these texts, user and assistant in turn; of one text it has no answer."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[number % 2], (text,)) for number, text in enumerate(texts))  # type: ignore[arg-type]
    return Example(identity, messages, "test", identity)


def data_set(folder: Path, examples: list[Example]) -> Dataset:
    write_jsonl(folder / "train.jsonl", [one.to_json() for one in examples])
    return Dataset(folder, {})


def test_rows_without_a_supervised_token_are_left_out_with_the_reason() -> None:
    rows = encode_examples([example("asked", "Who?"), example("answered", "Who?", "Me.")], ENCODER, 100)
    assert [kept.id for kept in rows.examples] == ["answered"]
    assert rows.left_out == [("asked", "no token that the loss counts")]


def test_the_account_counts_what_the_loss_counts() -> None:
    answers = ["Yes.", "A longer one, of several words.", "Yes. And no."]
    examples = [example(str(number), "Who?", answer) for number, answer in enumerate(answers)]
    rows = encode_examples([*examples, example("asked", "Who?")], ENCODER, 100)
    counts = sorted(len(ENCODER.tokenizer.encode(answer)) + 1 for answer in answers)  # and the end
    facts = account(rows)
    tokens = sum(len(row.ids) for row in rows.encoded)
    assert facts == {
        "rows": 3,
        "left_out": 1,
        "tokens": tokens,
        "supervised": sum(counts),
        "supervised_share": pytest.approx(sum(counts) / tokens, abs=1e-6),
        "supervised_a_row": {"min": counts[0], "median": counts[1], "max": counts[2]},
    }
    assert json.loads(json.dumps(facts)) == facts
    line = account_line("train", facts)
    assert line.startswith(f"train: 3 rows, {tokens} tokens, {sum(counts)} of them supervised (")
    assert line.endswith(f"; {counts[0]} to {counts[2]} a row, median {counts[1]}); 1 left out")


def test_an_account_of_nothing() -> None:
    facts = account(encode_examples([], ENCODER, 100))
    assert facts["supervised_share"] is None and facts["supervised_a_row"] is None
    assert account_line("val", facts) == "val: no rows"


def long(number: int) -> Example:
    """A file holds no row without an answer, but it may hold one that is too long for the model."""
    return example(f"long-{number}", "Who?", "word " * 99)


def test_the_account_and_every_row_left_out_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    examples = [*(long(number) for number in range(8)), example("answered", "Who?", "Me.")]
    with caplog.at_level(logging.DEBUG, "fieldtune"):
        rows = load_split(data_set(tmp_path, examples), "train", ENCODER, 100)
    assert account_line("train", account(rows)) in caplog.messages
    terminal = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(terminal) == 6 and terminal[-1] == "train: 3 further rows are left out; log.txt names them"
    named = [line for line in caplog.messages if "model.context_length is 100" in line]
    assert [line.split()[2] for line in named] == [f"long-{number}" for number in range(8)]


def test_a_split_without_a_row_that_can_be_used_is_an_error(tmp_path: Path) -> None:
    examples = [long(number) for number in range(3)]
    with pytest.raises(UserError, match=r"no train row can be used: long-0: \d+ tokens; .* \(and 2 more, named in log"):
        load_split(data_set(tmp_path, examples), "train", ENCODER, 100)
