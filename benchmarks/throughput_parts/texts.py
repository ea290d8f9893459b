"""Generated rows: short instructions that stand in for a file of them, and answers to long prompts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from fieldtune.records import Example, Message

Count = Callable[[str], int]  # tokens of a text

WORDS = (
    "river",
    "stone",
    "window",
    "garden",
    "letter",
    "market",
    "bridge",
    "winter",
    "candle",
    "harbor",
    "mountain",
    "kettle",
    "forest",
    "station",
    "mirror",
    "pencil",
    "orchard",
    "thunder",
    "blanket",
    "captain",
    "meadow",
    "lantern",
    "village",
    "compass",
    "feather",
    "basket",
    "silver",
    "engine",
    "island",
    "pocket",
)
VERBS = ("carries", "follows", "repairs", "remembers", "watches", "borrows", "paints", "measures", "forgets", "finds")
OPPOSITES = {"early": "late", "heavy": "light", "narrow": "wide", "quiet": "loud", "rough": "smooth", "ancient": "new"}
FIELDS = (
    "posture",
    "alignment",
    "grip",
    "stance",
    "tempo",
    "balance",
    "rotation",
    "extension",
    "release",
    "follow_through",
    "weight_shift",
    "head_position",
)
SYSTEM_TOKENS, CONTEXT_TOKENS, ANSWER_TOKENS = 650, 350, 250  # of a row with a long prefix


def instructions(count: int, seed: int) -> list[Example]:
    """Short everyday tasks in the Alpaca form: an instruction, half of the time an input, a sentence of answer."""
    draw = random.Random(seed)
    return [_example(number, "instruction", None, *_task(draw)) for number in range(count)]


def _task(draw: random.Random) -> tuple[tuple[str, ...], str]:
    """(instruction and perhaps its input, answer)."""
    sentence = f"The {draw.choice(WORDS)} {draw.choice(VERBS)} the {draw.choice(WORDS)} near the {draw.choice(WORDS)}."
    words = draw.sample(WORDS, draw.randint(3, 9))
    number, low = draw.randint(12, 980), draw.randint(2, 60)
    word = draw.choice(list(OPPOSITES))
    past = sentence.replace("s the", "d the", 1)
    tasks: list[tuple[tuple[str, ...], str]] = [
        ((f"Convert {number} kilometers to meters.",), f"{number} kilometers is {number * 1000:,} meters."),
        ((f"What is {number} minus {low}?",), f"{number} minus {low} is {number - low}."),
        (("Sort these words in alphabetical order.", ", ".join(words)), f"{', '.join(sorted(words))}."),
        ((f"Give an antonym of '{word}'.",), f"An antonym of '{word}' is '{OPPOSITES[word]}'."),
        (("Rewrite the sentence in the past tense.", sentence), past),
        (("Turn this sentence into a question.", sentence), f"Is it true that {sentence[0].lower()}{sentence[1:-1]}?"),
        (("How many words are in the list?", " ".join(words)), f"There are {len(words)} words in the list."),
        (("Write one sentence that uses the word in the input.", words[0]), f"The {words[0]} stood by the {words[1]}."),
    ]
    return draw.choice(tasks)


def long_prefixes(count: int, seed: int, tokens: Count) -> list[Example]:
    """A system prompt that all rows share, observations of a row's own, and an answer in JSON."""
    draw = random.Random(seed)
    system = "You assess one recorded motion. Answer with one JSON list of findings and nothing else. Rules:\n"
    system = _grown(system, _rules(), SYSTEM_TOKENS, tokens)
    rows = []
    for number in range(count):
        context = _grown("Observations:\n", _observations(draw), CONTEXT_TOKENS, tokens)
        answer = "[" + _grown("", _findings(draw), ANSWER_TOKENS, tokens).rstrip(",\n") + "]"
        rows.append(_example(number, "long_prefix", system, (context,), answer))
    return rows


def _rules() -> Iterator[str]:
    number = 0
    while True:
        for field in FIELDS:
            number += 1
            yield (
                f"{number}. The field '{field}' has a score from 0 to 1, the second at which it was seen, and a "
                f"reason of at most {10 + number % 7} words that names the {FIELDS[(number * 5) % len(FIELDS)]}.\n"
            )


def _observations(draw: random.Random) -> Iterator[str]:
    second = 0.0
    while True:
        second += draw.uniform(0.1, 0.6)
        seen = f"{draw.choice(FIELDS)} {draw.randint(3, 178)} degrees, the {draw.choice(WORDS)} in view"
        yield f"{second:.1f} s: {seen}\n"


def _findings(draw: random.Random) -> Iterator[str]:
    while True:
        reason = f"the {draw.choice(WORDS)} {draw.choice(VERBS)} the {draw.choice(WORDS)}"
        finding = {"field": draw.choice(FIELDS), "score": round(draw.random(), 2), "second": draw.randint(1, 9)}
        yield json.dumps(finding | {"reason": reason}) + ",\n"


def _grown(text: str, pieces: Iterator[str], wanted: int, tokens: Count) -> str:
    """The text with as many pieces added as fit into `wanted` tokens."""
    have = tokens(text)
    for piece in pieces:
        have += tokens(piece)
        if have > wanted:
            break
        text += piece
    return text


def _example(number: int, source: str, system: str | None, user: tuple[str, ...], answer: str) -> Example:
    first = (Message("system", (system,)),) if system else ()
    identity = f"{source}-{number:06d}"
    return Example(identity, (*first, Message("user", user), Message("assistant", (answer,))), source, identity)
