"""The templates of Mistral and Gemma: no system role, and an end of turn that is not the tokenizer's end token."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.config import TemplateKind
from fieldtune.data.encode import EncodeError, Encoder
from fieldtune.data.load import encode_examples
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.tokenizer import PretrainedTokenizer
from fieldtune.records import Example, Message
from tests.data.conversations import check_conversation, conversations

ENDS = {"mistral": "</s>", "gemma": "<end_of_turn>", "gemma2": "<end_of_turn>"}
TURNS = (
    Message("system", ("Be brief.",)),
    Message("user", ("Name a colour.", "Only one.")),
    Message("assistant", ("Blue.",)),
    Message("user", ("Another.",)),
    Message("assistant", ("Red.",)),
)
WRITTEN = {
    "mistral": "<s>[INST] Be brief.\n\nName a colour.\n\nOnly one.[/INST] Blue.</s>[INST] Another.[/INST] Red.</s>",
    "gemma": "<bos><start_of_turn>user\nBe brief.\n\nName a colour.\n\nOnly one.<end_of_turn>\n<start_of_turn>model\n"
    "Blue.<end_of_turn>\n<start_of_turn>user\nAnother.<end_of_turn>\n<start_of_turn>model\nRed.<end_of_turn>\n",
}
WRITTEN["gemma2"] = WRITTEN["gemma"]


@pytest.fixture(scope="module", params=list(ENDS))
def encoder(request: pytest.FixtureRequest, tiny_cache: Path) -> Encoder:
    return Encoder(PretrainedTokenizer(ensure_tiny(request.param, tiny_cache)), TemplateKind.chat)


def family(encoder: Encoder) -> str:
    return "mistral" if encoder.tokenizer.specials_in("[INST]") else "gemma"


def written(encoder: Encoder, ids: list[int]) -> str:
    return "".join(encoder.tokenizer.special(one) or encoder.tokenizer.decode([one]) for one in ids)


def test_the_end_of_a_turn_is_the_templates(encoder: Encoder) -> None:
    tokenizer = encoder.tokenizer
    assert tokenizer.special(tokenizer.end_id) == ENDS[family(encoder)]
    stops = {tokenizer.special(index) for index in tokenizer.stop_ids}
    assert stops == ({"</s>"} if family(encoder) == "mistral" else {"<end_of_turn>", "<eos>"})


def test_the_system_text_begins_the_first_user_turn(encoder: Encoder) -> None:
    row = encoder.row(TURNS)
    assert written(encoder, row.ids.tolist()) == WRITTEN[family(encoder)]
    gap = " " if family(encoder) == "mistral" else ""
    end = ENDS[family(encoder)]
    assert written(encoder, row.ids[row.trained].tolist()) == f"{gap}Blue.{end}{gap}Red.{end}"


@pytest.mark.parametrize("messages", [TURNS, TURNS[1:], TURNS[:3]])
def test_prompts_in_training_are_those_at_inference(encoder: Encoder, messages: tuple[Message, ...]) -> None:
    check_conversation(encoder, messages, trimmed=True)


@pytest.mark.parametrize("seed", range(3))
def test_awkward_conversations(encoder: Encoder, seed: int) -> None:
    plain = [
        messages
        for messages in conversations(seed, each=6)
        if not any(encoder.tokenizer.specials_in(message.text) for message in messages)  # "</s>" is among the atoms
    ]
    assert len(plain) > 10
    for messages in plain:
        check_conversation(encoder, messages, trimmed=True)


def test_a_template_with_a_system_role_keeps_it(smollm2: Path) -> None:
    encoder = Encoder(PretrainedTokenizer(smollm2), TemplateKind.chat)
    assert written(encoder, encoder.prompt(TURNS[:2])).startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_turns_that_the_template_refuses_are_left_out(encoder: Encoder) -> None:
    twice = (TURNS[1], TURNS[3], TURNS[2])
    alone = (TURNS[0], TURNS[2])
    rows = encode_examples(
        [Example(str(number), row, "test", str(number)) for number, row in enumerate((TURNS, twice, alone))],
        encoder,
        512,
    )
    assert [example.id for example in rows.examples] == ["0"]
    reasons = dict(rows.left_out)
    assert reasons["1"].startswith("the model's chat template refuses it: ") and "must alternate" in reasons["1"]
    assert reasons["2"] == "the model's chat template has no system role, and no user turn follows the system text"
    with pytest.raises(EncodeError, match="no user turn follows"):
        encoder.prompt(TURNS[:1])
