"""Text as it comes out of tokens: whole letters, nothing of a stop text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fieldtune.models.tokenizer import Gpt2Tokenizer
from fieldtune.serving.text_stream import TextStream

TEXT = "Ünïcode 🏌️ swings, 日本語 and <stop-ish words: end.\n\n  done"


def decode_bytes(ids: Sequence[int]) -> str:
    """Tokens are bytes."""
    return bytes(ids).decode("utf-8", "replace")


def pieces(text: str, stops: Sequence[str] = ()) -> tuple[list[str], TextStream]:
    """What comes of each byte, and of the end."""
    stream = TextStream(decode_bytes, stops)
    found = []
    for token in text.encode():
        found.append(stream.push(token))
        if stream.stopped:
            break
    return [*found, stream.end()], stream


def test_letters_come_whole_and_at_once() -> None:
    found, _ = pieces(TEXT)
    assert "".join(found) == TEXT and not any("\ufffd" in piece for piece in found)
    assert found[0] == "" and found[1] == "Ü" and found[-1] == ""


def test_with_real_tokens() -> None:
    tokenizer = Gpt2Tokenizer()
    stream = TextStream(tokenizer.decode)
    assert "".join([*(stream.push(token) for token in tokenizer.encode(TEXT)), stream.end()]) == TEXT


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["and"], "Ünïcode 🏌️ swings, 日本語 "),
        (["never", "語"], "Ünïcode 🏌️ swings, 日本"),
        (["<stop>"], TEXT),  # begun, but never whole
        (["words", "<stop"], "Ünïcode 🏌️ swings, 日本語 and "),
        ([TEXT[0]], ""),
        (["done"], TEXT[:-4]),
        (["\n\n"], TEXT[: TEXT.index("\n\n")]),
    ],
)
def test_it_ends_before_a_stop_text(stops: list[str], expected: str) -> None:
    found, stream = pieces(TEXT, stops)
    assert "".join(found) == expected and stream.stopped == (expected != TEXT)


def test_only_what_may_become_a_stop_text_is_held_back() -> None:
    found, _ = pieces("abcabd.", ["abd"])
    assert found == ["", "", "abc", "", "", "", ""]
    found, _ = pieces("aab", ["ab"])
    assert found == ["", "a", "", ""]


def test_a_letter_cut_in_two_at_the_end() -> None:
    stream = TextStream(decode_bytes)
    assert [stream.push(token) for token in "é".encode()[:1]] == [""] and stream.end() == "\ufffd"
