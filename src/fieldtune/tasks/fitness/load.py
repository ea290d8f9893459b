"""Training load: stress of a session (TSS), fitness, fatigue and form (CTL, ATL, TSB).

Sources: Coggan's normalized power, intensity factor and TSS; Banister's impulse-response model in its exponentially
weighted form, 42 and 7 days; Friel's heart-rate zones and their hourly stress.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CTL_DAYS = 42
ATL_DAYS = 7
ROLLING_SECONDS = 30
TSS_PER_HOUR = 50.0  # of a session of which only the duration is known
# Friel's zones: share of the threshold heart rate below which a zone lies, and its TSS an hour.
HEART_RATE_ZONES: tuple[tuple[float, float], ...] = (
    (0.81, 30.0),
    (0.90, 55.0),
    (0.94, 70.0),
    (1.00, 80.0),
    (1.03, 100.0),
    (1.06, 120.0),
    (float("inf"), 140.0),
)


@dataclass(frozen=True, slots=True)
class Load:
    """Fitness, fatigue and form after a day, in TSS a day."""

    ctl: float
    atl: float

    @property
    def tsb(self) -> float:
        return self.ctl - self.atl


def load_history(daily_tss: Sequence[float], start: Load = Load(0.0, 0.0)) -> list[Load]:
    """Load after each day: CTL += (TSS - CTL) / 42, ATL += (TSS - ATL) / 7.

    The form with which an athlete wakes up is that after the day before.
    """
    found, ctl, atl = [], start.ctl, start.atl
    for tss in daily_tss:
        ctl += (tss - ctl) / CTL_DAYS
        atl += (tss - atl) / ATL_DAYS
        found.append(Load(ctl, atl))
    return found


def normalized_power(watts: Sequence[float]) -> float:
    """Fourth root of the mean fourth power of the 30 s rolling mean; watts: one sample a second.

    Zeros (coasting) are kept: to leave them out would call a ride harder than it was. Of less than 30 s: the mean.
    """
    if not watts:
        return 0.0
    if len(watts) < ROLLING_SECONDS:
        return sum(watts) / len(watts)
    window, total, count = sum(watts[:ROLLING_SECONDS]), 0.0, 0
    for end in range(ROLLING_SECONDS, len(watts) + 1):
        total += (window / ROLLING_SECONDS) ** 4
        count += 1
        if end < len(watts):
            window += watts[end] - watts[end - ROLLING_SECONDS]
    return float((total / count) ** 0.25)


def power_tss(watts: Sequence[float], ftp_watts: float) -> float:
    """IF^2 * hours * 100, where IF is normalized power over threshold power; watts: one sample a second."""
    return (normalized_power(watts) / ftp_watts) ** 2 * len(watts) / 3600 * 100


def heart_rate_tss(beats: Sequence[float], lthr_bpm: float) -> float:
    """Time in Friel's zones by the zones' hourly stress; beats a minute, one sample a second."""
    return sum(_zone_tss(value / lthr_bpm) for value in beats) / 3600


def _zone_tss(share: float) -> float:
    return next(tss for limit, tss in HEART_RATE_ZONES if share < limit)


def duration_tss(minutes: float) -> float:
    """50 TSS an hour: the guess for a session without power and heart rate."""
    return TSS_PER_HOUR * minutes / 60


def intensity_tss(minutes: float, tss_per_hour: float) -> int:
    """Whole TSS of a planned session; at least 1 where there is any duration."""
    return max(1, round(minutes * tss_per_hour / 60)) if minutes else 0
