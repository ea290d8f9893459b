from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.prepare.preview import terminal_preview, write_preview
from fieldtune.records import Example, Message
from tests.evaluation.pages import CHROMIUM, overflow, parsed, words

COUNTS = {"split": {"train": 340, "val": 40, "test": 20}, "area": {f"area_{i}": 10 for i in range(40)}}


def example(answer: str = "Press the lead heel into the turf.") -> Example:
    messages = (
        Message("system", ("You are a golf coach.",)),
        Message("user", ("Assess this swing.", "balance: 42")),
        Message("assistant", (answer,)),
    )
    return Example("golf-000001", messages, "golf", "golf-000001", {"area": "balance", "score": 42})


def test_the_page_shows_counts_facts_and_turns(tmp_path: Path) -> None:
    path = write_preview(tmp_path / "made" / "preview.html", "golf", [example()], COUNTS, {"Rows": "400"})
    text = words(parsed(path.read_text(encoding="utf-8")))
    for wanted in ("340 85%", "and 10 more values with 100 rows", "You are a golf coach.", "Assess this swing.",
                   "balance: 42", "score: 42", "Assistant", "Rows 400"):  # fmt: skip
        assert wanted in text


def test_texts_are_escaped(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    path = write_preview(tmp_path / "p.html", attack, [example(attack * 40)], {attack: {attack: 1}}, {attack: attack})
    html = path.read_text(encoding="utf-8")
    parsed(html)
    assert attack not in html


def test_nothing_to_show(tmp_path: Path) -> None:
    path = write_preview(tmp_path / "p.html", "empty", [], {"split": {}, "area": {"a": 0}}, {})
    parsed(path.read_text(encoding="utf-8"))
    assert terminal_preview([], {"split": {}, "area": {"a": 0}}) == "area\n  a  0\n"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_no_horizontal_scroll_on_a_phone(tmp_path: Path) -> None:
    counts = {"source": {"a_file_with_a_very_long_name_and_no_space_at_all_in_it_indeed": 1_000_000, "b": 3}}
    path = write_preview(tmp_path / "p.html", "golf", [example("word" * 200)], counts, {"Fingerprint": "3fa9" * 16})
    assert overflow(path, tmp_path, 360) <= 0


@pytest.mark.parametrize("width", [20, 60, 100])
def test_terminal_lines_fit_and_carry_no_control_characters(width: int) -> None:
    text = terminal_preview([example("\x1b[31mred\x07 " + "long words " * 400)], COUNTS, width)
    assert all(len(line) <= max(width, 40) for line in text.splitlines())
    assert "\x1b" not in text and "\x07" not in text
    assert "more lines)" in text and "and 28 more values with 280 rows" in text
    assert text.endswith("\n") and "  train" in text
