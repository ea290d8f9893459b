"""docs/configuration.md is what the schema says, and the schema says what every key means."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune import reference
from fieldtune.checks import RANGES
from fieldtune.keys import schema_keys

KEYS = [key for _, keys in reference.sections() for key in keys]


def test_the_page_is_what_the_generator_prints(root: Path) -> None:
    written = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run: python -m fieldtune.reference > docs/configuration.md"


@pytest.mark.parametrize("key", KEYS, ids=[key.name for key in KEYS])
def test_every_key_has_a_meaning(key: reference.Key) -> None:
    assert key.meaning, f"write a comment beside the field of {key.name}"


def test_every_key_and_range_of_the_schema_is_on_the_page() -> None:
    listed = {key.name: key for key in KEYS}
    sections = {"data", *reference.SECTIONS}
    assert {name for name in schema_keys() if name not in sections} == {k for k in listed if "[]" not in k}
    assert all(listed[name].range for name in RANGES)


def test_a_row_holds_type_default_range_and_both_comments() -> None:
    rate = next(key for key in KEYS if key.name == "trainer.learning_rate")
    assert (rate.kind, rate.default, rate.range) == ("a number", "5e-05", "1e-12 to 10")
    prompt = next(key for key in KEYS if key.name == "data.train_on_prompt")
    assert prompt.default == "false" and prompt.meaning.startswith("The loss counts")  # the comment above the field


def test_every_choice_has_a_first_comment_line() -> None:
    for group, files in reference.choices():
        assert files, group
        for name, text in files:
            assert text, f"{group}/{name}.yaml begins without a comment"
