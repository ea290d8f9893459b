"""How long optimizer steps wait for data: until a window is laid out, and its media are read and on the device."""

from __future__ import annotations

from typing import Any


class DataWait:
    """Of this process's steps. The next window is made beside a step, so a step waits only where that takes longer.

    Times are seconds, a share is one of the whole: of the wait and the step after it. The first epoch counts apart, as
    media that nobody keeps yet may be decoded in it.
    """

    def __init__(self) -> None:
        self.waited, self.worked = [0.0, 0.0], [0.0, 0.0]  # in the first epoch, later

    def add(self, waited: float, worked: float, epoch: int) -> float:
        """A step of an epoch (from 0); returns the share that was waited."""
        part = min(epoch, 1)
        self.waited[part] += waited
        self.worked[part] += worked
        return waited / (waited + worked)

    def facts(self) -> dict[str, float]:
        """The shares of the first epoch and of those after it, as far as there were steps."""
        parts = zip(("first_epoch", "later_epochs"), self.waited, self.worked, strict=True)
        return {name: round(waited / (waited + worked), 5) for name, waited, worked in parts if worked}

    def line(self) -> str:
        """For the log; empty if there was no step."""
        shares = self.facts()
        if "later_epochs" in shares:
            return f"data wait: {shares['later_epochs']:.1%} of step time after the first epoch"
        return f"data wait: {shares['first_epoch']:.1%} of step time" if shares else ""

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self.waited, "worked": self.worked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waited, self.worked = list(state["waited"]), list(state["worked"])
