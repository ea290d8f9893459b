"""What can be checked in an answer: its sections, the figures it quotes, the severity, the area and the drills.

Severity words count only in the phrase that says a severity ("a major issue", see `SEVERITY_PHRASE`), since golf prose
may use them otherwise ("in a moderate swing"). Figures count only as 45%, 45.0%, 45 percent or 0.45, so that doses and
distances are never taken for scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fieldtune.records import Example
from fieldtune.tasks.base import Metric, Score
from fieldtune.tasks.golf.config import Form
from fieldtune.tasks.golf.feedback import SOURCE as FEEDBACK
from fieldtune.tasks.golf.knowledge import Knowledge, knowledge_at
from fieldtune.tasks.golf.phrases import HEADINGS
from fieldtune.tasks.golf.swing import AREAS, SEVERITIES, SEVERITY_PHRASE, percent

METRICS = (
    Metric("sections", "Sections", "share", "higher", "The form's headings are all there, once, in order, with text."),
    Metric("score_quoted", "Score quoted", "share", "higher", "The current score is quoted, and never a wrong one."),
    Metric("target_quoted", "Target quoted", "share", "higher", "The target score is quoted, and never a wrong one."),
    Metric("quoted", "Both figures quoted", "share", "higher", "Score and target are both quoted right."),
    Metric("severity", "Severity", "share", "higher", "The severity of the score is named, and no other severity."),
    Metric("area", "Area", "share", "higher", "The answer names the area that was asked about as the one scored."),
    Metric("drills", "Drills", "share", "higher", "It names a known drill, and only known drills of the area."),
)

_FIGURE = r"(?:(?P<percent>\d+(?:\.\d+)?)\s*(?:%|percent\b|/\s*100\b|out of 100\b)|(?P<share>0\.\d+|1\.0+))"
_ANY_FIGURE = re.compile(_FIGURE)
_LINKS = r"(?:\s+(?:is|of|at|was|stands at|sits at)|:)?\s+(?:only |just |now |currently )?"
_SCORE_CLAIM = re.compile(rf"\b(?P<target>target\s+)?score{_LINKS}{_FIGURE}", re.IGNORECASE)
_TARGET_CLAIM = re.compile(rf"\btarget(?:\s+score)?{_LINKS}{_FIGURE}", re.IGNORECASE)
_TITLED_DRILL = re.compile(r"\b((?:[A-Z][\w'-]*[ \t]+(?:(?:and|at|my|of|on|the|to)[ \t]+)*){1,6})Drills?\b")
_NOT_NAMES = {"First", "Second", "Third", "Next", "Last", "Main", "This", "That", "The", "Each", "Every", "One", "Your"}
_MORE_NAMES = {"setup_quality": ("setup",), "tempo_rhythm": ("tempo", "rhythm"), "followthrough": ("follow through",)}
_NAMES = {key: (name, key, key.replace("_", " "), *_MORE_NAMES.get(key, ())) for key, name in AREAS.items()}
TOLERANCE = 0.05  # percentage points


def score_answer(example: Example, answer: str) -> Score:
    """Each metric as 0 or 1, None where the row does not say what would be right; checks say what is wrong."""
    meta = example.meta
    if meta.get("area") not in AREAS or meta.get("form") not in Form.__members__:
        return Score({metric.name: None for metric in METRICS})
    area, heard = str(meta["area"]), _ScoreClaims.of(answer)
    knowledge = knowledge_at(meta.get("knowledge"))
    covered = area in knowledge.areas  # feedback may be on an area that a user's own knowledge base leaves out
    form = None if example.source == FEEDBACK else Form[meta["form"]]  # a user writes in any form
    problems = {
        "sections": _sections_problem(answer, form) if form else None,
        "score_quoted": _score_problem(answer, heard, area, float(meta["score"])),
        "target_quoted": _target_problem(answer, float(meta["target"])),
        "severity": _severity_problem(answer, str(meta["band"])),
        "area": _area_problem(answer, heard, area),
        "drills": _drills_problem(answer, area, knowledge) if covered else None,
    }
    values: dict[str, float | None] = {name: float(problem is None) for name, problem in problems.items()}
    values["quoted"] = float(values["score_quoted"] == values["target_quoted"] == 1.0)
    values |= {name: None for name, applies in (("sections", form), ("drills", covered)) if not applies}
    return Score({metric.name: values[metric.name] for metric in METRICS}, tuple(filter(None, problems.values())))


def parse_sections(answer: str) -> list[tuple[str, str]]:
    """(heading, text) in the order of the answer, for every heading of any form; text before the first is left out."""
    known = {heading for headings in HEADINGS.values() for heading in headings}
    found: list[tuple[str, list[str]]] = []
    for line in answer.splitlines():
        heading = next((name for name in known if line.strip().startswith(name)), None)
        if heading is not None:
            found.append((heading, [line.strip().removeprefix(heading)]))
        elif found:
            found[-1][1].append(line)
    return [(heading, "\n".join(lines).strip()) for heading, lines in found]


def _sections_problem(answer: str, form: Form) -> str | None:
    sections = parse_sections(answer)
    given = [heading for heading, _ in sections]
    for heading in HEADINGS[form]:
        if given.count(heading) != 1:
            return f"heading '{heading}' is {'missing' if heading not in given else 'repeated'}"
    if given != list(HEADINGS[form]):
        return "the sections are not in the form's order"
    empty = [heading for heading, text in sections if not text]
    return f"section '{empty[0]}' is empty" if empty else None


@dataclass(frozen=True, slots=True)
class _ScoreClaims:
    """What an answer says a score is: (area that is named before it, or None; percent) in order."""

    claims: tuple[tuple[str | None, float], ...]

    @classmethod
    def of(cls, answer: str) -> _ScoreClaims:
        return cls(
            tuple(
                (_area_before(answer[: match.start()]), _value(match))
                for match in _SCORE_CLAIM.finditer(answer)
                if not match["target"]
            )
        )

    def about(self, area: str) -> list[float]:
        """Figures claimed for an area; a score without a name is that of the area asked about."""
        return [value for name, value in self.claims if name in (None, area)]


def _area_before(text: str) -> str | None:
    """The area whose name stands right before the end of a text."""
    words = text[-40:].casefold().rstrip()
    return next((key for key, names in _NAMES.items() for name in names if words.endswith(name)), None)


def _value(match: re.Match[str]) -> float:
    return float(match["percent"]) if match["percent"] else float(match["share"]) * 100


def _is(value: float, share: float) -> bool:
    return abs(value - share * 100) < TOLERANCE


def _quoted(answer: str, share: float) -> bool:
    return any(_is(_value(match), share) for match in _ANY_FIGURE.finditer(answer))


def _score_problem(answer: str, heard: _ScoreClaims, area: str, score: float) -> str | None:
    claimed = heard.about(area)
    wrong = [value for value in claimed if not _is(value, score)]
    if wrong:
        return f"says the score is {wrong[0]:g}%, it is {percent(score)}"
    return None if claimed or _quoted(answer, score) else f"does not quote the score, {percent(score)}"


def _target_problem(answer: str, target: float) -> str | None:
    claimed = [_value(match) for match in _TARGET_CLAIM.finditer(answer)]
    wrong = [value for value in claimed if not _is(value, target)]
    if wrong:
        return f"says the target is {wrong[0]:g}%, it is {percent(target)}"
    return None if claimed or _quoted(answer, target) else f"does not quote the target, {percent(target)}"


def _severity_problem(answer: str, band: str) -> str | None:
    named = {match[1].casefold() for match in SEVERITY_PHRASE.finditer(answer)}
    if named == {band}:
        return None
    wrong = [word for word in SEVERITIES if word in named and word != band]
    return f"calls the issue {wrong[0]}, it is {band}" if wrong else f"does not name the severity, {band}"


def _area_problem(answer: str, heard: _ScoreClaims, area: str) -> str | None:
    named = next((name for name, _ in heard.claims if name is not None), None)
    if named is not None:
        return None if named == area else f"talks about {AREAS[named]}, asked was {AREAS[area]}"
    text = answer.casefold()
    return None if any(name in text for name in _NAMES[area][:3]) else f"does not name the area, {AREAS[area]}"


def _drills_problem(answer: str, area: str, knowledge: Knowledge) -> str | None:
    owners, pattern = _drill_names(knowledge.areas)
    named = [match[0].casefold() for match in pattern.finditer(answer)]
    other = next((name for name in named if owners[name] != area), None)
    if other is not None:
        return f"'{other}' is a drill of {AREAS[owners[other]]}"
    for match in _TITLED_DRILL.finditer(pattern.sub("\n", answer)):
        if not set(match[1].split()) <= _NOT_NAMES:
            return f"'{match[0]}' is not a drill that is known"
    return None if named else "names no known drill"


def _drill_names(areas: Mapping[str, Any]) -> tuple[Mapping[str, str], re.Pattern[str]]:
    """Drill names in lower case with their area, and a pattern that finds them."""
    return _compiled(tuple((drill.name.casefold(), key) for key, area in areas.items() for drill in area.drills))


@lru_cache(maxsize=4)
def _compiled(names: tuple[tuple[str, str], ...]) -> tuple[Mapping[str, str], re.Pattern[str]]:
    longest_first = sorted((name for name, _ in names), key=len, reverse=True)
    return dict(names), re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)
