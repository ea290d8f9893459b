"""The names of techniques: one spelling for each, whatever hyphens, case or marks a text has."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fieldtune.resources import resource

NOTHING = "no technique"  # the label of frames that show none
_NOTHING_KEYS = ("none", "negative", "negatives")  # folder names for it
SHIPPED = "knowledge/judo/kodokan.json"


def key(text: str) -> str:
    """What spellings of a name have in common: its letters and digits, without marks (Seoi_Nage, seoi-nage, SEOI NAGE).

    A text without any letter has the key "".
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.sub(r"[^a-z0-9]", "", plain)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """names: by key. categories: tachi-waza (standing) or ne-waza (ground) by name, of the Kodokan's."""

    names: Mapping[str, str]
    categories: Mapping[str, str]

    def find(self, text: str) -> str | None:
        """The name that a text spells; None if it is not known.

        A letter more or less is no spelling: o-uchi-gari and ko-uchi-gari are two techniques.
        """
        return self.names.get(key(text))

    def nearest(self, text: str) -> str:
        """The known name that a text is most like."""
        return self.names[difflib.get_close_matches(key(text), list(self.names), n=1, cutoff=0)[0]]


def vocabulary(more: Sequence[str] = ()) -> Vocabulary:
    """The Kodokan's 100 techniques, `NOTHING`, and the names given beside."""
    return _made(tuple(more))


@lru_cache(maxsize=8)
def _made(more: tuple[str, ...]) -> Vocabulary:
    techniques = json.loads(resource(SHIPPED).read_text(encoding="utf-8"))["techniques"]
    names = {key(name): name for name in (*(one["name"] for one in techniques), NOTHING, *more)}
    names |= dict.fromkeys(_NOTHING_KEYS, NOTHING)
    return Vocabulary(names, {one["name"]: one["category"] for one in techniques})
