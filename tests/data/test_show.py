"""The view of rows: what is shown as trained is what the loss counts, and no text can break out of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fieldtune.config import TemplateKind
from fieldtune.data.encode import Encoder
from fieldtune.data.show import UNFINISHED, ShownRow, View, terminal_view, tokens_of, view, write_view
from fieldtune.errors import UserError
from fieldtune.models.tokenizer import Gpt2Tokenizer, PretrainedTokenizer
from fieldtune.records import Message
from tests.evaluation.pages import CHROMIUM, overflow, parsed, words

from ..stages import TINY, compose, question_rows, run_here, write_rows
from .conversations import conversations

ATTACK = "<script>alert(1)</script> \x1b[31mred\x07 \u202eback"


@pytest.fixture(scope="module", params=["gpt2-alpaca", "smollm2-chat", "smollm2-alpaca"])
def encoder(request: pytest.FixtureRequest, smollm2: Path) -> Encoder:
    name, template = request.param.split("-")
    return Encoder(Gpt2Tokenizer() if name == "gpt2" else PretrainedTokenizer(smollm2), TemplateKind[template])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set: short rows, one that is much longer than they are, and one of hostile text."""
    folder = tmp_path_factory.mktemp("rows")
    rows = question_rows(30)
    long, hostile = ({"messages": [dict(turn) for turn in row["messages"]]} for row in rows[:2])
    long["messages"][1]["content"] = "a very long answer " * 40
    hostile["messages"][1]["content"] = ATTACK
    write_rows(folder / "rows.jsonl", [*rows[2:], {**long, "id": "long"}, {**hostile, "id": "hostile"}])
    run_here(folder, "prepare", *command_words(folder))
    return folder


def command_words(work: Path, *more: str) -> list[str]:
    data = ["data=jsonl", f"data.path={work / 'rows.jsonl'}", "data.split=[1,0,0]"]
    return [*data, *TINY, "trainer=fit", "model.context_length=100", *more]


def seen(work: Path, *more: str, count: int = 3, identity: str = "", split: str = "train") -> View:
    return view(compose(work, "train", *command_words(work, *more)), split, count, identity)


def test_what_is_shown_as_trained_is_what_the_loss_counts(encoder: Encoder) -> None:
    for messages in conversations(1, each=3):
        row = encoder.row(messages)
        tokens = tokens_of(row, encoder.tokenizer)
        assert [token.id for token in tokens] == row.ids.tolist()
        assert sum(token.trained for token in tokens) == row.supervised
        everything = encoder.row(messages, train_on_prompt=True)
        assert [token.trained for token in tokens_of(everything, encoder.tokenizer)] == [
            False,
            *[True] * (len(row.ids) - 1),
        ]


def test_the_tokens_texts_make_the_row(encoder: Encoder) -> None:
    """No letter is lost or doubled, though a character may be of several tokens and a token of half a character."""
    answer = "Grün — 日本 \U0001f3cc\ufe0f, \U0001f469\u200d\U0001f467\nvoilà.\t"
    tokens = tokens_of(encoder.row((Message("user", ("Hi",)), Message("assistant", (answer,)))), encoder.tokenizer)
    assert any(token.text == UNFINISHED for token in tokens)
    shown = "".join(token.text for token in tokens if token.trained and token.text != UNFINISHED and not token.special)
    for escape, char in (("\\ufe0f", "\ufe0f"), ("\\u200d", "\u200d"), ("⏎\n", "\n"), ("⇥", "\t")):
        shown = shown.replace(escape, char)
    assert shown == answer
    assert tokens[-1].special or tokens[-2].special  # the end, in letters
    assert encoder.tokenizer.special(encoder.tokenizer.end_id) in [token.text for token in tokens if token.trained]


def test_the_terminal_marks_trained_tokens_with_and_without_color(work: Path) -> None:
    found = seen(work, count=1)
    row = found.shown[0]
    answer = row.example.answer
    plain = terminal_view(found, color=False)
    assert "\x1b" not in plain
    run = re.search(r"### Response:⏎\n⟦(.*)⟧\n", plain)
    assert run and run[1].replace("·", "") == answer + "<|endoftext|>"
    assert f"--- {row.example.id}  {len(row.tokens)} tokens, {found.all_rows.encoded[0].supervised} trained (" in plain
    assert "train: " in plain and "long is left out: " in plain
    colored = terminal_view(found, color=True)
    green = "".join(re.findall(r"\x1b\[30;48[^m]*m([^\x1b]*)", colored.rpartition("---")[2]))
    assert green == answer + "<|endoftext|>"


def test_a_row_is_found_by_its_id_though_training_leaves_it_out(work: Path) -> None:
    (row,) = seen(work, identity="long").shown
    assert len(row.tokens) > 100 and "model.context_length is 100" in row.left_out
    with pytest.raises(UserError, match=r"id=long is a row of another split; give split=train"):
        seen(work, identity="long", split="val")
    with pytest.raises(UserError, match=r"id=nobody is not a row of this data set; its ids look like "):
        seen(work, identity="nobody")


def test_a_row_that_cannot_be_encoded_says_why(work: Path, smollm2: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [*question_rows(12), {**question_rows(13)[-1], "id": "special"}])
    text = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert "team 87" in text
    (tmp_path / "rows.jsonl").write_text(text.replace("team 87", "<|im_end|>"), encoding="utf-8")
    chat = ["model=smollm2_135m", f"model.weights=folder:{smollm2}", "model.context_length=200"]
    given = [word for word in command_words(tmp_path) if not word.startswith("model")]
    run_here(tmp_path, "prepare", *given, *chat)
    found = view(compose(tmp_path, "train", *given, *chat), "train", 3, "special")
    assert found.shown == [ShownRow(found.shown[0].example, [], found.shown[0].left_out)]
    text = terminal_view(found, color=False)
    assert "--- special  not encoded" in text and "left out: the text holds '<|im_end|>'" in text
    parsed(write_view(tmp_path / "rows.html", found).read_text(encoding="utf-8"))


def test_train_on_prompt_is_shown(work: Path) -> None:
    (row,) = seen(work, "data.train_on_prompt=true", count=1).shown
    assert [token.trained for token in row.tokens] == [False, *[True] * (len(row.tokens) - 1)]


def test_the_page_shows_tokens_ids_and_what_is_left_out(work: Path, tmp_path: Path) -> None:
    found = seen(work, count=2)
    html = write_view(tmp_path / "made" / "rows.html", found).read_text(encoding="utf-8")
    text = words(parsed(html))
    row = found.shown[0]
    assert row.counts in text and found.account_line in text and "Rows that training leaves out" in text
    body = html.partition("</style>")[2]
    assert body.count('title="id ') == sum(len(row.tokens) for row in found.shown)
    assert body.count(', trained">') == sum(token.trained for row in found.shown for token in row.tokens)
    assert body.count('<span class="t on sp" title="id 50256, token ') == len(found.shown)
    assert "&lt;|endoftext|&gt;" in body


def test_hostile_text_stays_text(work: Path, tmp_path: Path) -> None:
    found = seen(work, identity="hostile")
    for color in (False, True):
        text = re.sub(r"\x1b\[[\d;]*m", "", terminal_view(found, color=color))
        assert not {char for char in text if not char.isprintable()} - {"\n"}
    html = write_view(tmp_path / "rows.html", found).read_text(encoding="utf-8")
    parsed(html)
    assert "alert(1)<" not in html and "\u202e" not in html and "\x1b" not in html


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_no_horizontal_scroll_on_a_phone(work: Path, tmp_path: Path) -> None:
    page = write_view(tmp_path / "rows.html", seen(work, identity="long"))
    assert overflow(page, tmp_path, 360) <= 0


def test_a_page_that_cannot_be_written_is_one_line(work: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"html=.* cannot be written \(.*\); give the path of a file"):
        write_view(tmp_path / "file" / "rows.html", seen(work, count=1))


def test_only_the_tokenizer_is_asked_for(work: Path) -> None:
    """GPT-2's vocabulary needs no weights: a released model's rows are shown before anything is downloaded."""
    assert seen(work, "model=gpt2_124m", count=1).shown[0].tokens
