"""Swings drawn at random and the feedback on them, one row at a time: 100,000 rows need no more memory than one."""

from __future__ import annotations

import random
from collections.abc import Iterator

from fieldtune.errors import UserError
from fieldtune.records import Example, Message
from fieldtune.tasks.golf.compose import compose
from fieldtune.tasks.golf.config import Data
from fieldtune.tasks.golf.feedback import swing_facts
from fieldtune.tasks.golf.knowledge import Knowledge
from fieldtune.tasks.golf.swing import AREAS, SWING_TYPES, Swing, swing_prompt

__all__ = ["SOURCE", "Swing", "draw_swing", "generate", "swing_prompt"]

SOURCE = "golf"
SCORES = (0.20, 0.95)  # range of the other areas' scores
FOCUS_SCORES = (0.20, 0.85)  # range of the score that feedback is given on
GAPS = (0.10, 0.30)  # range of what is added to it for the target
HIGHEST_TARGET = 0.95


def generate(data: Data, knowledge: Knowledge, seed: int) -> Iterator[Example]:
    """`data.count` examples in `data.form`. Row i depends on the seed, the knowledge base, the form and i alone.

    Areas take turns: each run of as many rows as there are areas has every area once, in shuffled order.
    """
    if data.count < 0 or (data.count == 0 and data.feedback is None):
        raise UserError(f"data.count={data.count} makes no rows; give a count of at least 1")
    areas = list(knowledge.areas)
    order: list[str] = []
    for row in range(data.count):
        place = row % len(areas)
        if place == 0:
            # A text as seed is hashed with SHA-512: the same in every process and on every machine.
            order = random.Random(f"golf areas {seed} {row}").sample(areas, len(areas))
        rng = random.Random(f"golf row {seed} {row}")
        yield _example(row, draw_swing(rng, order[place]), rng, data, knowledge)


def draw_swing(rng: random.Random, area: str) -> Swing:
    """A random swing to be judged on `area`. Scores to two decimals, target above score."""
    scores = {key: round(rng.uniform(*SCORES), 2) for key in AREAS}
    score = scores[area] = round(rng.uniform(*FOCUS_SCORES), 2)
    target = round(min(HIGHEST_TARGET, score + rng.uniform(*GAPS)), 2)
    return Swing(area, score, target, scores, rng.choice(SWING_TYPES))


def _example(row: int, swing: Swing, rng: random.Random, data: Data, knowledge: Knowledge) -> Example:
    wording = rng.randrange(60)
    feedback = compose(rng, swing, knowledge.areas[swing.area], data.form)
    meta = swing_facts(swing, data) | {"drills": list(feedback.drills), "fault": feedback.fault}
    turns = (Message("user", swing_prompt(swing, data.form, wording)), Message("assistant", (feedback.text,)))
    name = f"golf-{row:06d}"
    return Example(name, turns, SOURCE, name, meta)
