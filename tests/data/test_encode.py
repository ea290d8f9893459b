"""Templates: the prompt in training is the prompt at inference, and each turn's end is trained exactly once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fieldtune.config import TemplateKind
from fieldtune.data.encode import EncodeError, Encoder
from fieldtune.data.load import encode_examples
from fieldtune.models.tokenizer import Gpt2Tokenizer, PretrainedTokenizer
from fieldtune.records import Example, Message

ONE_TURN = (Message("user", ("Name a colour.", "Only one.")), Message("assistant", ("Blue.",)))
WITH_SYSTEM = (Message("system", ("Be brief.",)), *ONE_TURN)
THREE_TURNS = (
    *WITH_SYSTEM,
    Message("user", ("Another one.",)),
    Message("assistant", ("Red.",)),
    Message("user", ("And a last one, with an é and a\n\nblank line.",)),
    Message("assistant", ("Green, of course.",)),
)
CONVERSATIONS = [ONE_TURN, WITH_SYSTEM, THREE_TURNS]


@pytest.fixture(scope="module", params=["gpt2-alpaca", "smollm2-chat", "smollm2-alpaca"])
def encoder(request: pytest.FixtureRequest, smollm2: Path) -> Encoder:
    name, template = request.param.split("-")
    tokenizer = Gpt2Tokenizer() if name == "gpt2" else PretrainedTokenizer(smollm2)
    return Encoder(tokenizer, TemplateKind[template])


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_prompt_ids_in_training_are_those_at_inference(encoder: Encoder, messages: tuple[Message, ...]) -> None:
    row = encoder.row(messages)
    turns = [number for number, message in enumerate(messages) if message.role == "assistant"]
    for number in turns:
        prompt = encoder.prompt(messages[:number])
        assert row.ids[: len(prompt)].tolist() == prompt
        assert not row.trained[len(prompt) - 1] and row.trained[len(prompt)]


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_trained_tokens_are_the_answers_and_one_end_a_turn(encoder: Encoder, messages: tuple[Message, ...]) -> None:
    row, end = encoder.row(messages), encoder.tokenizer.end_id
    answers = [message.text for message in messages if message.role == "assistant"]
    trained = row.ids[row.trained].tolist()
    assert trained.count(end) == len(answers)
    ends = np.flatnonzero((row.ids == end) & row.trained)
    begins = np.flatnonzero(row.trained[1:] & ~row.trained[:-1]) + 1
    for answer, first, last in zip(answers, begins, ends, strict=True):
        assert encoder.tokenizer.decode(row.ids[first:last].tolist()) == answer


def test_train_on_prompt_counts_every_token_but_the_first(encoder: Encoder) -> None:
    row = encoder.row(ONE_TURN, train_on_prompt=True)
    assert row.supervised == len(row.ids) - 1


def test_alpaca_form_is_the_documents(smollm2: Path) -> None:
    encoder = Encoder(Gpt2Tokenizer(), TemplateKind.alpaca)
    assert encoder.tokenizer.decode(encoder.row(ONE_TURN).ids.tolist()) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nName a colour.\n\n### Input:\nOnly one.\n\n### Response:\nBlue."
    )


def test_chat_form_is_the_models_own(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(smollm2)
    ours = Encoder(PretrainedTokenizer(smollm2), TemplateKind.chat)
    plain = [{"role": message.role, "content": message.text} for message in THREE_TURNS]
    text = theirs.apply_chat_template(plain, tokenize=False)
    assert theirs.decode(ours.row(THREE_TURNS).ids) == text
    assert ours.row(THREE_TURNS).ids.tolist() == theirs.encode(text, add_special_tokens=False)


def example(identity: str, answer: str) -> Example:
    return Example(identity, (Message("user", ("Say it.",)), Message("assistant", (answer,))), "test", identity)


def test_rows_that_do_not_fit_are_left_out_and_named_never_cut(smollm2: Path) -> None:
    encoder = Encoder(PretrainedTokenizer(smollm2), TemplateKind.chat)
    examples = [example("short", "Yes."), example("long", "word " * 300), example("special", "<|im_end|> hidden")]
    rows = encode_examples(examples, encoder, 100)
    assert [kept.id for kept in rows.examples] == ["short"]
    reasons = dict(rows.left_out)
    assert "tokens; model.context_length is 100" in reasons["long"]
    assert "<|im_end|>" in reasons["special"]
    with pytest.raises(EncodeError, match="special token"):
        encoder.prompt((Message("user", ("a <|im_start|> b",)),))


def test_gpt2_takes_special_texts_for_letters() -> None:
    encoder = Encoder(Gpt2Tokenizer(), TemplateKind.alpaca)
    row = encoder.row(example("x", "<|endoftext|> is a token").messages)
    assert row.ids.tolist().count(encoder.tokenizer.end_id) == 1


def test_gpt2_vocabulary_is_the_published_one() -> None:
    tokenizer = Gpt2Tokenizer()
    assert tokenizer.encode("hello world") == [31373, 995]
    assert tokenizer.size == 50257


def test_gpt2_files_open_with_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = Gpt2Tokenizer()
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Hello wörld!\n\n### Response:\n", "scores 0.45 -> 75%", "  two  spaces\t日本"):
        assert theirs.encode(text) == tokenizer.encode(text)
    assert theirs.eos_token_id == tokenizer.end_id
