"""A scored swing, how bad its score is, and the prompt that asks for feedback on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fieldtune.errors import UserError
from fieldtune.tasks.golf.config import Form

# Scored area: its name in a sentence.
AREAS = {
    "setup_quality": "setup quality",
    "tempo_rhythm": "tempo and rhythm",
    "weight_shift": "weight shift",
    "body_rotation": "body rotation",
    "impact_quality": "impact quality",
    "followthrough": "follow-through",
    "balance": "balance",
    "consistency": "consistency",
}
SWING_TYPES = ("power_swing", "precision_swing", "balanced_swing")
SEVERITIES = ("major", "moderate", "minor")
MAJOR_BELOW = 0.40
MODERATE_BELOW = 0.60
# How a severity is said in an answer. Scoring reads the word as the severity only in this phrase, so that prose such
# as "in a moderate swing" stays free; the knowledge base itself must not use the phrase.
SEVERITY_NOUNS = ("issue", "problem", "weakness", "concern", "fault", "flaw", "shortfall", "limitation")
SEVERITY_PHRASE = re.compile(rf"\b({'|'.join(SEVERITIES)})\s+(?:{'|'.join(SEVERITY_NOUNS)})\b", re.IGNORECASE)

INSTRUCTIONS = (
    "Provide personalized golf swing feedback based on the scores below.",
    "Provide personalized golf swing feedback for the area named below.",
    "Provide personalized golf swing feedback that takes this player from the current score to the target.",
    "Provide personalized golf swing feedback as a coach would after looking at these quality scores.",
    "Provide personalized golf swing feedback with clear, actionable steps for this swing.",
    "Provide personalized golf swing feedback for the player whose swing was scored as follows.",
)
# A model may learn from both forms, so the prompt has to say which one is wanted.
FULL_INSTRUCTIONS = (
    "Provide personalized golf swing feedback in full, from the ideal motion to a progress check.",
    "Provide personalized golf swing feedback as a complete lesson on the area named below.",
    "Provide personalized golf swing feedback in full detail, with the reasons, common faults and feels.",
    "Provide personalized golf swing feedback as a full report for the player scored below.",
    "Provide personalized golf swing feedback as a whole lesson plan for these quality scores.",
    "Provide personalized golf swing feedback in full, and say how the player can check progress.",
)
SHORT_INSTRUCTION = "Give short golf swing feedback."


def severity(score: float) -> str:
    """major below 0.40, moderate below 0.60, else minor."""
    if score < MAJOR_BELOW:
        return "major"
    return "moderate" if score < MODERATE_BELOW else "minor"


def percent(score: float) -> str:
    """A score in [0, 1] as it is quoted: 0.45 is 45%."""
    return f"{round(score * 100)}%"


@dataclass(frozen=True, slots=True)
class Swing:
    """A swing and the area to work on. Scores are shares in [0, 1] to two decimals; `scores` holds all eight areas."""

    area: str
    score: float
    target: float
    scores: Mapping[str, float]
    swing_type: str

    @classmethod
    def from_mapping(cls, raw: Any) -> Swing:
        """The swing of decoded JSON; `UserError` says in one line what is wrong with it.

        `scores` may leave out the area itself; scores of more than two decimals are rounded.
        """
        keys = ("area", "score", "target", "scores", "swing_type")
        if not isinstance(raw, Mapping):
            raise UserError(f"a swing is an object with {', '.join(keys)}; got {_shown(raw)}")
        if missing := [key for key in keys if key not in raw]:
            raise UserError(f"the swing has no {', '.join(missing)}; give all of {', '.join(keys)}")
        area = _one_of("area", raw["area"], tuple(AREAS))
        score, target = _share("score", raw["score"]), _share("target", raw["target"])
        if target <= score:
            raise UserError(f"target {target} is not above score {score}; give a target above it, at most 1")
        scores = raw["scores"]
        if not isinstance(scores, Mapping):
            raise UserError(f"scores must be an object of area and score; got {_shown(scores)}")
        if unknown := sorted(str(key) for key in scores if key not in AREAS):
            raise UserError(f"scores has unknown area {', '.join(unknown)}; allowed: {', '.join(AREAS)}")
        if missing := [key for key in AREAS if key not in scores and key != area]:
            raise UserError(f"scores has no {', '.join(missing)}; give a score from 0 to 1 for each of the eight areas")
        shares = {key: _share(f"scores.{key}", scores.get(key, score)) for key in AREAS}
        if shares[area] != score:
            raise UserError(f"score is {score} but scores.{area} is {shares[area]}; give the same figure for both")
        return cls(area, score, target, shares, _one_of("swing_type", raw["swing_type"], SWING_TYPES))

    def to_json(self) -> dict[str, Any]:
        """The mapping that `from_mapping` reads."""
        return {
            "area": self.area,
            "score": self.score,
            "target": self.target,
            "scores": dict(self.scores),
            "swing_type": self.swing_type,
        }


def swing_prompt(swing: Swing, form: Form, wording: int = 0) -> tuple[str, str]:
    """(instruction, input) that asks for feedback on a swing; training and inference share it.

    wording: which of the instruction's wordings is taken; any integer, counted around.
    """
    lines = [f"Area: {swing.area}", f"Current Score: {swing.score:.2f}", f"Target Score: {swing.target:.2f}"]
    if form is Form.short:
        weakest = min((key for key in AREAS if key != swing.area), key=swing.scores.__getitem__)
        lines.append(f"Other Scores: {weakest} {swing.scores[weakest]:.2f}")
        instruction = SHORT_INSTRUCTION
    else:
        lines.append("All Quality Scores: " + ", ".join(f"{key} {swing.scores[key]:.2f}" for key in AREAS))
        wordings = FULL_INSTRUCTIONS if form is Form.full else INSTRUCTIONS
        instruction = wordings[wording % len(wordings)]
    lines.append(f"Swing Type: {swing.swing_type}")
    return instruction, "\n".join(lines)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UserError(f"{name} is {_shown(value)}; allowed: {', '.join(allowed)}")
    return str(value)


def _share(name: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= 1:
        raise UserError(f"{name} is {_shown(value)}; give a number from 0 to 1, as 0.45 for 45%")
    return round(float(value), 2)


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
