"""The data section of `data=fitness`."""

from __future__ import annotations

from dataclasses import dataclass, field

from fieldtune.config import DataConfig


@dataclass(kw_only=True, slots=True)
class Data(DataConfig):
    """Coaching examples of simulated athletes, and of real ones where there are logs."""

    task: str = "fitness"
    count: int = 1000  # rows to make
    rows_per_athlete: int = 4  # rows of one athlete, who stays in one split
    shares: list[float] = field(default_factory=lambda: [0.15, 0.6, 0.25])  # coaching, plan changes, weekly plans
    hard: float = 0.3  # share of the plan changes on health, conflicting wishes, too little data or off topic
    logs: str | None = None  # training log (.csv), FIT file or folder of them: real athletes join the simulated ones
    conversations: str | None = None  # JSON Lines of conversations that join the rows; each is validated
