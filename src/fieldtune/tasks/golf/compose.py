"""The answer to a swing: sentences of the knowledge base, chosen and joined by the swing's figures."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from fieldtune.tasks.golf import phrases
from fieldtune.tasks.golf.config import Form
from fieldtune.tasks.golf.knowledge import Area, Drill, Fault
from fieldtune.tasks.golf.swing import AREAS, MODERATE_BELOW, Swing, percent, severity

SMALL_GAP_BELOW = 0.15
LARGE_GAP_FROM = 0.22
# Words and marks of the short sections together, without headings: 99 of 100 answers then have at most 110 GPT-2
# tokens, and none over 115. Draws: how often other frames are tried before the fault is left out.
SHORT_PIECES = 71
SHORT_DRAWS = 8
_PIECE = re.compile(r"[a-z]{8}|\w+|[^\w\s]")  # a long word is two tokens
_BALL = re.compile(r"\bballs?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Feedback:
    """A composed answer and what it names: the fault's id, the drills' names in order."""

    text: str
    fault: str
    drills: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is decided before anything is written."""

    rng: random.Random
    swing: Swing
    area: Area
    fault: Fault
    drills: tuple[Drill, ...]
    band: str
    gap: str  # small | medium | large

    def say(self, frames: Sequence[str], **more: str) -> str:
        """One of the frames, filled in."""
        swing = self.swing
        return self.rng.choice(frames).format(
            area=AREAS[swing.area],
            score=percent(swing.score),
            target=percent(swing.target),
            severity=self.band,
            swing=swing.swing_type.replace("_", " "),
            **more,
        )

    def some(self, sentences: Sequence[str], count: int) -> list[str]:
        """`count` of the sentences in random order, fewer if there are fewer."""
        return self.rng.sample(sentences, min(count, len(sentences)))

    def maybe(self, share: float) -> bool:
        return self.rng.random() < share


def compose(rng: random.Random, swing: Swing, area: Area, form: Form) -> Feedback:
    """Feedback on a swing in the given form; the same state of `rng` gives the same text."""
    band, gap = severity(swing.score), _gap(swing)
    fault = rng.choice(area.faults)
    drills = _drills(rng, area, fault, band, gap)
    plan = _Plan(rng, swing, area, fault, drills, band, gap)
    if form is Form.short:
        return _short(plan)
    sections = _full(plan) if form is Form.full else _document(plan)
    return _feedback(plan, form, sections)


def _feedback(plan: _Plan, form: Form, sections: Sequence[str]) -> Feedback:
    blocks = [f"{heading}\n{text}" for heading, text in zip(phrases.HEADINGS[form], sections, strict=True)]
    return Feedback("\n\n".join(blocks), plan.fault.id, tuple(drill.name for drill in plan.drills))


def _gap(swing: Swing) -> str:
    gap = round(swing.target - swing.score, 2)
    if gap < SMALL_GAP_BELOW:
        return "small"
    return "medium" if gap < LARGE_GAP_FROM else "large"


def _drills(rng: random.Random, area: Area, fault: Fault, band: str, gap: str) -> tuple[Drill, ...]:
    """One to three drills: the worse the score and the wider the gap, the more and the more basic."""
    count = 1 + (band == "major" or gap != "small") + (band == "major" and gap == "large")
    own = rng.sample(fault.drills, len(fault.drills))
    rest = rng.sample([drill for drill in area.drills if drill not in fault.drills], len(area.drills) - len(own))
    if band == "major":
        own.sort(key=_with_ball)
        rest.sort(key=_with_ball)
    queue = [*own[:1], *rest] if rng.random() < 0.4 else [*own, *rest]
    return tuple(queue[:count])


def _with_ball(drill: Drill) -> bool:
    """Rehearsals without a ball are the more basic drills."""
    return bool(_BALL.search(f"{drill.equipment} {drill.brief} {drill.dose}"))


def _document(plan: _Plan) -> list[str]:
    fault = plan.fault
    more = plan.some(fault.causes, 1) if plan.maybe(0.5) else [fault.effect]
    faulty = " ".join([_named_fault(plan), *plan.some(fault.shows, 1), *more])
    current = _current(plan, 1 + plan.maybe(0.4), faulty)
    steps = _practice(plan)
    if plan.maybe(0.6):
        steps.insert(plan.rng.randrange(1, len(steps) + 1), _feel(plan, 1))
    steps.append(plan.say(phrases.EXPECTED[plan.gap]))
    return [_ideal(plan, 2), current, _bullets(steps)]


def _full(plan: _Plan) -> list[str]:
    fault = plan.fault
    other = plan.rng.choice([item for item in plan.area.faults if item is not fault])
    first = " ".join([f"{_capital(fault.name)}:", *plan.some(fault.shows, 1), *plan.some(fault.causes, 1)])
    second = [plan.say(phrases.SECOND_FAULT, fault=other.name), *plan.some(other.shows, 1)]
    progress = [plan.drills[0].success, *plan.some(plan.area.progress, 1)]
    plan.rng.shuffle(progress)
    return [
        _ideal(plan, 2 + plan.maybe(0.5)),
        " ".join(plan.some(plan.area.why, 2)),
        _current(plan, 1 + plan.maybe(0.5), _named_fault(plan)),
        _bullets([f"{first} {fault.effect}", " ".join(second)]),
        _bullets(_practice(plan)),
        _feel(plan, 2),
        " ".join([*progress, plan.say(phrases.EXPECTED[plan.gap])]),
    ]


def _short(plan: _Plan) -> Feedback:
    """Feel, score, fault and the area's one short drill, whose name a model can learn from a few hundred rows."""
    drill = _short_drill(plan.area)
    faults = [fault for fault in plan.area.faults if drill in fault.drills]
    plan = replace(plan, drills=(drill,), fault=plan.rng.choice(faults or plan.area.faults))
    for draw in range(2 * SHORT_DRAWS):
        frames = phrases.SHORT_FAULT_OCCASIONAL if plan.band == "minor" else phrases.SHORT_FAULT
        current = plan.say(frames if draw < SHORT_DRAWS else phrases.SHORT_STATUS, fault=plan.fault.name)
        step = plan.say(phrases.SHORT_DRILL, drill=drill.name, brief=_lower(drill.brief), dose=drill.dose)
        room = SHORT_PIECES - _pieces(current) - _pieces(step)
        feels = [feel for feel in (*plan.fault.feel, *plan.area.feels) if _pieces(feel) <= room]
        if feels:
            break
    else:
        feels = [min(plan.area.feels, key=_pieces)]
    return _feedback(plan, Form.short, [plan.rng.choice(feels), current, step])


def _short_drill(area: Area) -> Drill:
    """The drill that takes the fewest words, of those that mend a named fault."""
    named = [drill for drill in area.drills if any(drill in fault.drills for fault in area.faults)]
    return min(named or area.drills, key=lambda drill: _pieces(f"{drill.name} {drill.brief} {drill.dose}"))


@lru_cache(maxsize=4096)
def _pieces(text: str) -> int:
    return len(_PIECE.findall(text))


def _ideal(plan: _Plan, count: int) -> str:
    opening = [plan.say(phrases.OPENINGS)] if plan.maybe(0.5) else []
    return " ".join([*opening, *plan.some(plan.area.ideal, count)])


def _current(plan: _Plan, bands: int, faulty: str) -> str:
    """Where the score stands, then fault, other area and swing type in changing order."""
    status = [plan.say(phrases.STATUS), plan.say(phrases.TARGETS[plan.gap])]
    band = " ".join(plan.some(plan.area.bands[plan.band], bands))
    kind = f"{plan.say(phrases.SWING_TYPE)} {plan.rng.choice(plan.area.swing_types[plan.swing.swing_type])}"
    ends = [_link(plan), kind]
    plan.rng.shuffle(ends)
    middle = [band, faulty] if plan.maybe(0.7) else [faulty, band]
    return " ".join([*status, *middle, *ends])


def _named_fault(plan: _Plan) -> str:
    frames = phrases.FAULT_OCCASIONAL if plan.band == "minor" else phrases.FAULT_PRESENT
    return plan.say(frames, fault=plan.fault.name)


def _link(plan: _Plan) -> str:
    """How the weakest or the strongest of the other areas acts on this one."""
    scores = plan.swing.scores
    others = [key for key in AREAS if key != plan.swing.area]
    weakest, strongest = min(others, key=scores.__getitem__), max(others, key=scores.__getitem__)
    weak = scores[strongest] < MODERATE_BELOW or (scores[weakest] < MODERATE_BELOW and plan.maybe(0.6))
    other, frames = (weakest, phrases.LINK_WEAK) if weak else (strongest, phrases.LINK_STRONG)
    when_weak, when_strong = plan.area.links[other][:2]
    named = plan.say(frames, other=AREAS[other], figure=percent(scores[other]))
    return f"{named} {when_weak if weak else when_strong}"


def _practice(plan: _Plan) -> list[str]:
    """The drills with their doses, a first step before them, the order and a word of care behind them."""
    first, *others = plan.drills
    lines = plan.some(plan.area.first_steps, 1) if plan.maybe(0.5) else []
    dose = plan.say(phrases.DOSE, dose=first.dose)
    care = plan.maybe(0.6)
    own_care = [first.safety] if care else []
    lines.append(" ".join([plan.say(phrases.FIRST_DRILL, drill=first.name), *first.steps, dose, *own_care]))
    for drill, frames in zip(others, (phrases.NEXT_DRILL, phrases.LAST_DRILL), strict=False):
        named = plan.say(frames, drill=drill.name, brief=_lower(drill.brief))
        lines.append(f"{named} {plan.say(phrases.DOSE, dose=drill.dose)}")
    if others and plan.gap == "large":
        lines.append(plan.say(phrases.SCHEDULE))
    return lines if care else [*lines, plan.rng.choice(plan.area.safety)]


def _feel(plan: _Plan, count: int) -> str:
    feels = plan.some(plan.fault.feel, 1)
    return " ".join([*feels, *plan.some(plan.area.feels, count - 1)])


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    """The sentence behind a colon."""
    return text[:1].lower() + text[1:]
