"""Exercise names: how they are cut out of labels and paths, and how they are found in an answer."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from functools import lru_cache
from pathlib import PurePath

# Names that the set itself gives another name.
RENAMED = {"armcrosschest": "deltoid stretch"}
# Folders that are named by what they are, not by what is done in them.
NO_EXERCISE = {
    *(
        "",
        ".",
        "..",
        "video",
        "videos",
        "clip",
        "clips",
        "film",
        "films",
        "data",
        "dataset",
        "datasets",
        "media",
        "raw",
    ),
    *("train", "val", "valid", "validation", "test", "qved", "qevd", "download", "downloads", "tmp"),
}
# A dash between an exercise and what is said of it has a space beside it; a hyphen inside a name ("cat-cow") has none.
_BREAK = re.compile(r"\s+[-\u2013\u2014]\s*|\s*[-\u2013\u2014]\s+")

_WORD = re.compile(r"[^\W_]+")


def normal(name: str) -> str:
    """A name as it is shown: lower case, single spaces, hyphens kept."""
    text = " ".join(name.replace("_", " ").split()).casefold()
    return RENAMED.get(text, text)


def key(name: str) -> str:
    """What two spellings of a name have in common: "Push-Up", "push_up" and "pushup" are one."""
    return re.sub(r"[\W_]+", "", normal(name))


def parts_of(label: str) -> tuple[str, str]:
    """(exercise, what is said of it) of "cat-cow - back stays flat"; the first is empty in a text without the dash."""
    found = _BREAK.search(label)
    if found is None:
        return "", label.strip()
    return normal(label[: found.start()]), label[found.end() :].strip()


def from_path(path: PurePath, no_exercise: Container[str] = NO_EXERCISE) -> str:
    """The exercise that a path names, or an empty text: its folder, else its file name without numbers.

    "squat/0001.mp4" is a squat, "clips/00012_cat-cow_003.mp4" a cat-cow, "00000000.mp4" nothing. no_exercise: folders
    that do not count, in lower case.
    """
    folder = path.parent.name
    if folder.casefold() not in no_exercise and _letters(folder):
        return normal(folder)
    return normal(" ".join(word for word in map(_without_number, re.split(r"[_\s.]+", path.stem)) if word))


def _without_number(word: str) -> str:
    """A word of a file name: its hyphenated parts that hold a digit are taken off ("squat-003", "take2")."""
    return "-".join(part for part in word.split("-") if part and not re.search(r"\d", part))


def _letters(text: str) -> bool:
    return re.search(r"[^\W\d_]", text) is not None


def words_of(text: str) -> str:
    """A text as words with single spaces between and around them: what names and phrases are sought in."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def named_in(text: str, names: Iterable[str]) -> set[str]:
    """Which of the names a text holds. A longer one hides those inside it; spaces, hyphens and plurals do not count."""
    known = tuple(sorted(set(names), key=lambda name: (-len(name), name)))
    if not known:
        return set()
    return {known[int(str(match.lastgroup)[1:])] for match in _pattern(known).finditer(words_of(text))}


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    alternatives = (f"(?P<n{number}>{_spelled(name)})" for number, name in enumerate(names))
    return re.compile(f" (?:{'|'.join(alternatives)})(?= )")


def _spelled(name: str) -> str:
    words = words_of(name).split() or ["\x00"]
    words[-1] = re.sub(r"(?<=ch|sh|ss)es$|(?<=[^s])s$", "", words[-1])
    return " ?".join(map(re.escape, words)) + "(?:e?s)?"
