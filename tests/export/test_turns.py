"""Chat templates for other programs: taken apart, written for Ollama and Jinja, rendered again, compared in ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.config import TemplateKind, TokenizerKind
from fieldtune.data.encode import Encoder
from fieldtune.errors import UserError
from fieldtune.export.conversations import CONVERSATIONS
from fieldtune.export.modelfile import read_modelfile, write_modelfile
from fieldtune.export.template_check import compare, has_go, rendered_by_go, tokenizer_of
from fieldtune.export.turns import FOLD, Turns, turns
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.tokenizer import PretrainedTokenizer, load_tokenizer

from ..models.byte_model import save_byte_model

needs_go = pytest.mark.skipif(not has_go(), reason="no go on PATH")
BEGINS = {"mistral": "<s>", "gemma": "<bos>"}


def encoder_of(name: str, folder: Path) -> Encoder:
    """gpt2: alpaca headings; bytes: a template that keeps a system text; others: the families' own."""
    if name == "gpt2":
        return Encoder(load_tokenizer(TokenizerKind.gpt2_bpe, None), TemplateKind.alpaca)
    made = save_byte_model(folder) if name == "bytes" else ensure_tiny(name, folder)
    return Encoder(load_tokenizer(TokenizerKind.from_weights, made), TemplateKind.chat)


@pytest.fixture(scope="module", params=["gpt2", "bytes", "mistral", "gemma"])
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Encoder]:
    return request.param, encoder_of(request.param, tmp_path_factory.mktemp(request.param))


def edges() -> set[str]:
    return {one.name for one in CONVERSATIONS if one.edges}


@needs_go
def test_ollamas_template_gives_the_ids_of_training(named: tuple[str, Encoder]) -> None:
    name, encoder = named
    begin = BEGINS.get(name, "")
    template = turns(encoder).without_begin(begin).ollama()
    text = write_modelfile([("FROM", "./model.gguf"), ("TEMPLATE", template), ("PARAMETER stop", "x")])
    texts = rendered_by_go(dict(read_modelfile(text))["TEMPLATE"], CONVERSATIONS)
    assert begin == "" or not any(begin in text for text in texts)
    found = compare("it", encoder, CONVERSATIONS, texts, tokenizer_of(encoder, begin))
    assert found["equal"] >= len(CONVERSATIONS) - len(edges()) and not found["left_out"]
    assert set(found["differ_in_blanks_at_the_ends"]) <= edges()


def test_the_pieces_render_as_training_does(named: tuple[str, Encoder]) -> None:
    _, encoder = named
    found = turns(encoder)
    for one in CONVERSATIONS:
        if not one.edges:
            system = one.messages[0].text if one.messages[0].role == "system" else None
            said = [message.text for message in one.messages if message.role != "system"]
            assert found.render(system, said) == encoder.prompt_text(one.messages), one.name


def test_a_system_text_is_folded_as_in_training(tmp_path: Path) -> None:
    """By Jinja, before the family's own template, which drops it or refuses it."""
    encoder = encoder_of("gemma", tmp_path)
    tokenizer = PretrainedTokenizer(ensure_tiny("gemma", tmp_path))
    tokenizer.native.chat_template = FOLD + tokenizer.native.chat_template
    said = [one for one in CONVERSATIONS if not one.edges]
    plain = [[{"role": turn.role, "content": turn.text} for turn in one.messages] for one in said]
    texts = [tokenizer.chat(messages, open_turn=True) for messages in plain]
    assert compare("it", encoder, said, texts, tokenizer_of(encoder, ""))["equal"] == len(said)


def test_headings_as_a_jinja_template(tmp_path: Path) -> None:
    """What a run with model.template=alpaca publishes in place of the base's own template."""
    tokenizer = load_tokenizer(TokenizerKind.from_weights, save_byte_model(tmp_path))
    encoder = Encoder(tokenizer, TemplateKind.alpaca)
    tokenizer.native.chat_template = turns(encoder).jinja()
    said = [one for one in CONVERSATIONS if not one.edges]
    plain = [[{"role": turn.role, "content": turn.text} for turn in one.messages] for one in said]
    texts = [tokenizer.chat(messages, open_turn=True) for messages in plain]
    assert compare("it", encoder, said, texts, tokenizer_of(encoder, ""))["equal"] == len(said)


def test_another_template_is_found_out(tmp_path: Path) -> None:
    """One blank more, and the gate names the conversation and the tokens."""
    encoder = encoder_of("bytes", tmp_path)
    texts = [encoder.prompt_text(one.messages) for one in CONVERSATIONS]
    texts[3] = texts[3].replace("Hard.", "Hard. ")
    with pytest.raises(UserError, match=r"other token ids than training for 'three turns', from token \d+.*published"):
        compare("the Modelfile's TEMPLATE", encoder, CONVERSATIONS, texts, tokenizer_of(encoder, ""))


def test_a_template_that_counts_turns_is_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TokenizerKind.from_weights, save_byte_model(tmp_path))
    tokenizer.native.chat_template = (
        "{% for message in messages %}{% if loop.index > 3 %}!{% endif %}"
        "<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    with pytest.raises(UserError, match="differently by what follows or stands before it"):
        turns(Encoder(tokenizer, TemplateKind.chat))


AWKWARD = Turns('{{ x }}"""<a>{', '\u00a0<b>\\"', "\t{", "}}\r\n\u200d", " ", '"', keeps_empty=True)


@needs_go
def test_texts_that_go_or_a_modelfile_would_take_for_their_own() -> None:
    text = write_modelfile([("FROM", "./x"), ("TEMPLATE", AWKWARD.ollama())])
    said = [one for one in CONVERSATIONS if not one.edges]
    texts = rendered_by_go(dict(read_modelfile(text))["TEMPLATE"], said)
    for one, found in zip(said, texts, strict=True):
        system = one.messages[0].text if one.messages[0].role == "system" else None
        assert found == AWKWARD.render(system, [turn.text for turn in one.messages if turn.role != "system"])


@needs_go
def test_a_broken_template_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^Go cannot render the template: [^\n]*missing value for range$"):
        rendered_by_go("{{ range }}", CONVERSATIONS[:1])


def test_a_modelfile_is_read_as_it_was_written() -> None:
    lines = [
        ("FROM", "./model.gguf"),
        ("SYSTEM", 'Say "yes".\n\n  Or\tno"'),
        ("PARAMETER stop", "<|im_end|>"),
        ("PARAMETER stop", "### "),
        ("PARAMETER num_ctx", "2048"),
    ]
    text = write_modelfile(lines)
    assert read_modelfile(text) == lines
    assert "PARAMETER num_ctx 2048\n" in text and 'PARAMETER stop """### """\n' in text


@pytest.mark.parametrize("value", ['ends early"""\nFROM elsewhere', "a\u00a0blank of its own width", "\u200b"])
def test_a_text_that_a_modelfile_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="SYSTEM"):
        write_modelfile([("SYSTEM", value)])
