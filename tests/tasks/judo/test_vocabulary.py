from __future__ import annotations

import json

import pytest

from fieldtune.resources import resource
from fieldtune.tasks.judo.vocabulary import NOTHING, SHIPPED, key, vocabulary


def test_the_kodokans_hundred() -> None:
    shipped = json.loads(resource(SHIPPED).read_text(encoding="utf-8"))
    names = [one["name"] for one in shipped["techniques"]]
    assert len(names) == len({key(name) for name in names}) == 100
    assert "Kodokan" in shipped["source"]
    categories = [one["category"] for one in shipped["techniques"]]
    assert (categories.count("tachi-waza"), categories.count("ne-waza")) == (68, 32)
    assert all(vocabulary().find(name) == name for name in names)


@pytest.mark.parametrize("text", ["seoi-nage", "Seoi_Nage", "SEOI NAGE", "seoi nage.", "seoinage", "Sēoi-nage"])
def test_spellings_of_one_name(text: str) -> None:
    assert vocabulary().find(text) == "seoi-nage"


def test_a_letter_is_a_difference() -> None:
    known = vocabulary()
    assert known.find("o-uchi-gari") == "o-uchi-gari" and known.find("ko-uchi-gari") == "ko-uchi-gari"
    assert known.find("seoi-naqe") is None and known.nearest("seoi-naqe") == "seoi-nage"
    assert known.find("") is None and known.nearest("") in known.names.values()


def test_negatives_and_further_names() -> None:
    assert {vocabulary().find(name) for name in ("none", "Negatives", "no_technique", "no technique")} == {NOTHING}
    assert vocabulary().find("hiza-tori") is None
    assert vocabulary(["Hiza-tori"]).find("hiza tori") == "Hiza-tori"
