"""Exercises, done well or with one named fault: each is a movement that begins and ends in the same upright stand.

The stand is the same for all, so the first frame of a film says nothing of it. Two pairs are the same frames in another
order: arm circles forward and backward, and a squat that drops fast and one that rises fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin

from fieldtune.sources.figures.body import Pose, between, mirrored, pose

STAND = Pose()


@dataclass(frozen=True, slots=True)
class Style:
    """What differs from one to another who do the same. reps: repetitions in a film. depth: share of the full range.

    left: the left side begins.
    """

    reps: int = 1
    depth: float = 1.0
    left: bool = False


Motion = Callable[[float, Style], Pose]  # share of the movement that is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Move:
    """An exercise in one variation: `good form`, a fault, or a direction.

    advice: what a coach says of it. reverse: the motion runs backward. ordered: there is another move of the exercise
    with the same frames in the reverse order.
    """

    exercise: str
    variation: str
    advice: str
    motion: Motion
    reverse: bool = False
    ordered: bool = False

    @property
    def label(self) -> str:
        return f"{self.exercise} - {self.variation}"

    @property
    def description(self) -> str:
        return f"{self.exercise} - {self.variation}: {self.advice}"

    def pose_at(self, share: float, style: Style) -> Pose:
        """The pose when a share of the movement is done; 0 and 1 are `STAND`."""
        return self.motion(1 - share if self.reverse else share, style)


def _smooth(share: float) -> float:
    """From 0 to 1 with a soft start and end."""
    share = min(1.0, max(0.0, share))
    return share * share * (3 - 2 * share)


def _waves(share: float, reps: int) -> float:
    """0, 1, 0, 1, ..., 0: as many times up as there are repetitions."""
    return (1 - cos(2 * pi * reps * share)) / 2


def _there_and_back(turn: Pose) -> Motion:
    """From the stand into a pose and back, once a repetition."""
    return lambda share, style: between(STAND, turn, _waves(share, style.reps) * style.depth)


_SQUAT = pose(hips=(0.5, -0.28), back=(0.65, 0.55, 0.2), arms=(1.45, 0.1, 0.97), feet=(0.14, 0.0, 0.0))
_SHALLOW = between(STAND, _SQUAT, 0.42)
_CAVED = pose(_SQUAT, knees_in=(1.0,))


def _dropped(share: float, style: Style) -> Pose:
    """A squat that is down after a fifth of the time and takes the rest to come up."""
    down = _smooth(share / 0.2) if share < 0.2 else 1 - _smooth((share - 0.2) / 0.8)
    return between(STAND, _SQUAT, down * style.depth)


def _lunge(lean: float) -> Motion:
    turn = pose(
        hips=(0.66, 0.3),
        back=(lean, lean, lean / 2),
        right_foot=(0.02, 0.0, 0.78),
        left_foot=(0.02, 0.12, -0.46),
        arms=(0.05, 0.45, 0.7),
    )

    def motion(share: float, style: Style) -> Pose:
        second = style.reps > 1 and share > 0.5
        found = between(STAND, turn, _waves(share, style.reps) * style.depth)
        return mirrored(found) if style.left != second else found

    return motion


_JACK = pose(hips=(0.91, 0.0), feet=(0.4, 0.0, 0.0), arms=(0.0, 2.8, 0.98))
_HALF_JACK = pose(_JACK, arms=(0.0, 1.3, 0.98))


def _floor(high: Pose, low: Pose, reps: int = 1) -> Motion:
    """Down to a pose on the floor in a fifth of the time, there between two poses, and up again."""

    def motion(share: float, style: Style) -> Pose:
        inside = min(1.0, max(0.0, (share - 0.2) / 0.6))
        working = between(high, low, _waves(inside, reps * style.reps) * style.depth)
        return between(STAND, working, _smooth(share / 0.2) * _smooth((1 - share) / 0.2))

    return motion


_PLANK_FEET = (0.02, 0.08, -0.82)
_HIGH = pose(hips=(0.45, 0.08), back=(1.2, 1.2, 1.2), feet=_PLANK_FEET, on_hands=(1.0,))
_LOW = pose(_HIGH, hips=(0.25, 0.1), back=(1.42, 1.42, 1.42))
_HIGH_SAGGING = pose(_HIGH, hips=(0.2, 0.06), back=(1.0, 0.6, 0.9))
_LOW_SAGGING = pose(_LOW, hips=(0.1, 0.08), back=(1.3, 1.0, 1.2))

_FOURS = pose(hips=(0.51, -0.2), back=(1.45, 1.45, 1.45), feet=(0.02, 0.06, -0.7), on_hands=(1.0,))
_CAT = pose(_FOURS, back=(0.85, 2.0, 2.5))
_COW = pose(_FOURS, back=(2.0, 0.9, 0.5))


def _cat_cow(share: float, style: Style) -> Pose:
    inside = min(1.0, max(0.0, (share - 0.2) / 0.6))
    bend = sin(2 * pi * style.reps * inside) * style.depth
    working = between(_FOURS, _CAT if bend > 0 else _COW, abs(bend))
    return between(STAND, working, _smooth(share / 0.2) * _smooth((1 - share) / 0.2))


def _knees(height: float) -> Motion:
    """Knees raised in turn; height: of the ankle, in leg lengths."""
    turn = pose(
        hips=(0.99, 0.0),
        right_foot=(0.02, height, 0.15 + 0.6 * height),
        right_arm=(-0.7, 0.15, 0.8),
        left_arm=(1.3, 0.15, 0.75),
    )

    def motion(share: float, style: Style) -> Pose:
        steps = 2 * style.reps
        found = between(STAND, turn, _waves(share, steps) * style.depth)
        second = int(min(share, 0.999) * steps) % 2 == 1
        return mirrored(found) if style.left != second else found

    return motion


def _circles(share: float, style: Style) -> Pose:
    """Both arms around: back, up, and forward down again."""
    arms = (0.05 - 2 * pi * style.reps * share, 0.14 + 0.2 * sin(pi * share), 0.98)
    return pose(arms=arms)


MOVES = (
    Move("squat", "good form", "deep, and with the knees over the toes; keep it up", _there_and_back(_SQUAT)),
    Move("squat", "shallow depth", "the hips stay far above the knees; sit lower", _there_and_back(_SHALLOW)),
    Move("squat", "knees cave in", "press them outward, over the toes", _there_and_back(_CAVED)),
    Move("squat", "drops too fast", "take two seconds on the way down", _dropped, ordered=True),
    Move("squat", "rises too fast", "take two seconds on the way up", _dropped, reverse=True, ordered=True),
    Move("lunge", "good form", "a long step and an upright chest; keep it up", _lunge(0.05)),
    Move("lunge", "chest falls forward", "stay upright over the hips", _lunge(0.85)),
    Move("jumping jack", "good form", "the hands meet over the head; keep it up", _there_and_back(_JACK)),
    Move("jumping jack", "arms stop halfway", "bring the hands together overhead", _there_and_back(_HALF_JACK)),
    Move("push-up", "good form", "one straight line from head to heels; keep it up", _floor(_HIGH, _LOW)),
    Move("push-up", "hips sag", "brace the belly, so that the body is one line", _floor(_HIGH_SAGGING, _LOW_SAGGING)),
    Move("high knees", "good form", "the thighs come up to the hips; keep it up", _knees(0.5)),
    Move("high knees", "knees stay low", "lift them to the height of the hips", _knees(0.2)),
    Move("arm circles", "forward", "large and even; now change the direction", _circles, ordered=True),
    Move("arm circles", "backward", "large and even; now the other way", _circles, reverse=True, ordered=True),
    Move("cat-cow", "good form", "the back rounds and hollows in full; keep it up", _cat_cow),
    Move("cat-cow", "back stays flat", "round it like a cat, then let it hang", _floor(_FOURS, _FOURS)),
)
EXERCISES = tuple(dict.fromkeys(move.exercise for move in MOVES))


def label_backward(move: Move) -> str | None:
    """The label of a move's frames in the reverse order, where that is another move."""
    return next(
        (one.label for one in MOVES if one.ordered and (one.motion, one.reverse) == (move.motion, not move.reverse)),
        None,
    )
