"""Templates: the prompt in training is the prompt at inference, and each turn's end is trained exactly once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fieldtune.config import TemplateKind
from fieldtune.data.batches import collate
from fieldtune.data.encode import EncodeError, Encoder
from fieldtune.data.load import encode_examples
from fieldtune.models.tokenizer import Gpt2Tokenizer, PretrainedTokenizer
from fieldtune.records import Example, Message

from .conversations import check_conversation, conversations, with_tokens

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
TURNS = 5  # of all of them


@pytest.fixture(scope="module", params=["gpt2-alpaca", "smollm2-chat", "smollm2-alpaca"])
def encoder(request: pytest.FixtureRequest, smollm2: Path) -> Encoder:
    name, template = request.param.split("-")
    tokenizer = Gpt2Tokenizer() if name == "gpt2" else PretrainedTokenizer(smollm2)
    return Encoder(tokenizer, TemplateKind[template])


@pytest.fixture(scope="module", params=["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
def padded(request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """SmolLM2 with its own pad token, which is the end token too, and with others."""
    folder = with_tokens(smollm2, tmp_path_factory.mktemp("padded"), pad_token=request.param)
    encoder = Encoder(PretrainedTokenizer(folder), TemplateKind.chat)
    assert encoder.tokenizer.special(encoder.tokenizer.pad_id) == request.param
    return encoder


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_a_plain_conversation(encoder: Encoder, messages: tuple[Message, ...]) -> None:
    check_conversation(encoder, messages)


@pytest.mark.parametrize("seed", range(4))
def test_awkward_conversations(encoder: Encoder, seed: int) -> None:
    for messages in conversations(seed):
        check_conversation(encoder, messages)


def test_the_end_is_trained_once_a_turn_whatever_pads(padded: Encoder) -> None:
    end = padded.tokenizer.end_id
    for messages in conversations(4, each=3):
        check_conversation(padded, messages)
    assert targets(padded, padded.tokenizer.pad_id).count(end) == TURNS


def test_padding_with_the_end_token_trains_no_more_ends(encoder: Encoder) -> None:
    end = encoder.tokenizer.end_id
    assert targets(encoder, end).count(end) == TURNS


def targets(encoder: Encoder, pad_id: int) -> list[int]:
    """Trained tokens of a batch of rows of unlike lengths."""
    return collate([encoder.row(messages) for messages in CONVERSATIONS], pad_id)["targets"].tolist()


def test_blanks_before_marks_are_decoded_as_they_were(smollm2: Path, tmp_path: Path) -> None:
    """Many a published tokenizer asks for `clean_up_tokenization_spaces`, which would eat them."""
    folder = with_tokens(smollm2, tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["clean_up_tokenization_spaces"] = True
    # The newest releases ignore the former for a BPE, but not for other tokenizers.
    settings["clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = PretrainedTokenizer(folder)
    text = "He is n't 's , here ."
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "answer", [" leading", "trailing ", "\n\nbreaks\n\n", "\t x \t", "é", "\U0001f3cc\ufe0f", ". 's"]
)
def test_blanks_around_a_text_are_kept(encoder: Encoder, answer: str) -> None:
    for system in ((), (Message("system", (answer,)),), (Message("system", ("",)),)):
        check_conversation(encoder, (*system, Message("user", (answer, answer)), Message("assistant", (answer,))))


def test_no_row_begins_twice(encoder: Encoder) -> None:
    """A tokenizer may add a begin token of its own; a template that has one already must not get another."""
    begin = encoder.row(ONE_TURN).ids[:2].tolist()
    assert begin[0] != begin[1]
    assert [encoder.tokenizer.special(index) for index in begin].count(None) >= 1
    assert encoder.prompt(ONE_TURN[:1])[:2] == begin


def test_a_begin_token_of_template_and_tokenizer_comes_once(smollm2: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    template = "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + ']' + m.content }}"
    template += "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    folder = with_tokens(smollm2, tmp_path, template=template, bos_token="<|endoftext|>")
    _prepend_begin(folder / "tokenizer.json")
    assert AutoTokenizer.from_pretrained(folder).encode("x")[0] == 0  # this tokenizer does add one
    encoder = Encoder(PretrainedTokenizer(folder), TemplateKind.chat)
    for messages in (*CONVERSATIONS, *conversations(5, each=2)):
        check_conversation(encoder, messages)
        assert encoder.row(messages).ids.tolist().count(0) == 1


def _prepend_begin(path: Path) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    single = [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    token = {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": token},
    }
    path.write_text(json.dumps(settings), encoding="utf-8")


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
