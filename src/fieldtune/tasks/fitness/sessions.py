"""The sessions that a plan is made of: their names, and the stress of an hour at each intensity."""

from __future__ import annotations

from dataclasses import dataclass

from fieldtune.tasks.fitness.load import intensity_tss
from fieldtune.tasks.fitness.schema import Intensity, Sport

TSS_PER_HOUR: dict[Intensity, float] = {
    "rest": 0.0,
    "recovery": 30.0,
    "easy": 45.0,
    "moderate": 60.0,
    "threshold": 80.0,
    "vo2max": 95.0,
}
UNKNOWN_WEEK = 150.0  # TSS planned for a week of an athlete whose fitness is not known
ENDURANCE: tuple[Sport, ...] = ("running", "cycling", "swimming", "rowing")
LONGEST: dict[Sport, int] = {
    "running": 150,
    "cycling": 270,
    "swimming": 100,
    "rowing": 120,
}  # minutes of a long session
SHARE_OF_LONGEST = {"recovery": 0.4, "threshold": 0.5, "vo2max": 0.5, "easy": 0.6, "moderate": 0.6, "long": 1.0}
_NAMES: dict[Sport, dict[str, str]] = {
    "running": {
        "recovery": "Recovery run",
        "easy": "Easy run",
        "long": "Long run",
        "moderate": "Steady run",
        "threshold": "Threshold run",
        "vo2max": "Hill repeats",
    },
    "cycling": {
        "recovery": "Recovery spin",
        "easy": "Easy ride",
        "long": "Long ride",
        "moderate": "Tempo ride",
        "threshold": "Sweet spot ride",
        "vo2max": "VO2max intervals",
    },
    "swimming": {
        "recovery": "Technique swim",
        "easy": "Easy swim",
        "long": "Long swim",
        "moderate": "Steady swim",
        "threshold": "Threshold swim",
        "vo2max": "Sprint sets",
    },
    "rowing": {
        "recovery": "Recovery row",
        "easy": "Easy row",
        "long": "Long row",
        "moderate": "Steady row",
        "threshold": "Threshold row",
        "vo2max": "Power intervals",
    },
}


@dataclass(frozen=True, slots=True)
class Session:
    """A session by its plan. kind: an intensity, or `long` (easy)."""

    name: str
    sport: Sport
    minutes: int
    intensity: Intensity
    tss: int


def session(sport: Sport, kind: str, minutes: float) -> Session:
    """A session of a kind, its duration to five minutes and not beyond what the sport allows."""
    most = LONGEST[sport] * SHARE_OF_LONGEST[kind]
    whole = max(20, 5 * round(min(minutes, most) / 5))
    intensity = intensity_of(kind)
    return Session(_NAMES[sport][kind], sport, whole, intensity, intensity_tss(whole, TSS_PER_HOUR[intensity]))


def session_of_tss(sport: Sport, kind: str, tss: float) -> Session:
    """A session of a kind that comes to about this TSS."""
    return session(sport, kind, tss / TSS_PER_HOUR[intensity_of(kind)] * 60)


def intensity_of(kind: str) -> Intensity:
    """The intensity of a kind of session."""
    return next((level for level in TSS_PER_HOUR if level == kind), "easy")


def other_sport(sport: Sport) -> Sport:
    """The sport that spares what a sport strains: off the feet for runners and cyclists, on the bike for the others."""
    return "swimming" if sport in ("running", "cycling") else "cycling"
