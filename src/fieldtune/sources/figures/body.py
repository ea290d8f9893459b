"""A body of bones: a pose gives where its joints are. x is to its left, y up, z the way it faces; lengths in meters."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]  # [3]
Numbers = tuple[float, ...]
SIDES = (("left", 1.0), ("right", -1.0))
# Bones by the joints at their ends and the part that gives them their color.
BONES = (
    ("pelvis", "back", "top"),
    ("back", "neck", "top"),
    ("neck", "head", "skin"),
    ("left hip", "right hip", "legs"),
    ("left shoulder", "right shoulder", "top"),
    *((f"{side} hip", f"{side} knee", "legs") for side, _ in SIDES),
    *((f"{side} knee", f"{side} ankle", "legs") for side, _ in SIDES),
    *((f"{side} ankle", f"{side} toe", "skin") for side, _ in SIDES),
    *((f"{side} shoulder", f"{side} elbow", "top") for side, _ in SIDES),
    *((f"{side} elbow", f"{side} hand", "skin") for side, _ in SIDES),
)


@dataclass(frozen=True, slots=True)
class Body:
    """Lengths of the bones in meters; `shoulders` and `hips` are half widths, `half_back` half the back's length."""

    thigh: float = 0.44
    shin: float = 0.44
    half_back: float = 0.25
    neck: float = 0.2
    upper_arm: float = 0.29
    forearm: float = 0.27
    shoulders: float = 0.19
    hips: float = 0.1
    foot: float = 0.16

    @property
    def leg(self) -> float:
        return self.thigh + self.shin

    @property
    def arm(self) -> float:
        return self.upper_arm + self.forearm


@dataclass(frozen=True, slots=True)
class Pose:
    """How a body stands. The default stands upright, arms down.

    Lengths are in leg lengths, angles in radians. hips: height and how far forward. back: lean of its lower half, of
    its upper half and of the neck, from upright. left_foot, right_foot: of the ankle, out from under the hip, up and
    forward. knees_in: 0 over the toes, 1 fallen inward. left_arm, right_arm: swing (forward, pi is overhead), spread
    (to the side) and stretch (1: straight). on_hands: 1 puts both hands on the floor under the shoulders.
    """

    hips: Numbers = (0.99, 0.0)
    back: Numbers = (0.0, 0.0, 0.0)
    left_foot: Numbers = (0.08, 0.0, 0.0)
    right_foot: Numbers = (0.08, 0.0, 0.0)
    knees_in: Numbers = (0.0,)
    left_arm: Numbers = (0.05, 0.14, 0.98)
    right_arm: Numbers = (0.05, 0.14, 0.98)
    on_hands: Numbers = (0.0,)


def pose(
    base: Pose | None = None,
    *,
    feet: Numbers | None = None,
    arms: Numbers | None = None,
    **parts: Numbers,
) -> Pose:
    """A pose by what differs from `base` (standing); feet, arms: the same for both sides."""
    both = {f"{side}_foot": feet for side, _ in SIDES if feet is not None}
    both |= {f"{side}_arm": arms for side, _ in SIDES if arms is not None}
    return replace(base or Pose(), **(both | parts))


def between(first: Pose, second: Pose, share: float) -> Pose:
    """The pose on the way from one to another; share 0: the first, 1: the second."""

    def mixed(name: str) -> Numbers:
        pairs = zip(getattr(first, name), getattr(second, name), strict=True)
        return tuple((1 - share) * a + share * b for a, b in pairs)

    return Pose(**{item.name: mixed(item.name) for item in fields(Pose)})


def mirrored(one: Pose) -> Pose:
    """Left and right exchanged."""
    return replace(
        one, left_foot=one.right_foot, right_foot=one.left_foot, left_arm=one.right_arm, right_arm=one.left_arm
    )


def joints(one: Pose, body: Body) -> dict[str, Vector]:
    """Place of each joint, in meters; the floor is y = 0, the origin under the hips of one who stands."""
    height, forward = (value * body.leg for value in one.hips)
    found = {"pelvis": np.array([0.0, height, forward])}
    for name, base, length, lean in (
        ("back", "pelvis", body.half_back, one.back[0]),
        ("neck", "back", body.half_back, one.back[1]),
        ("head", "neck", body.neck, one.back[2]),
    ):
        found[name] = found[base] + length * np.array([0.0, np.cos(lean), np.sin(lean)])
    for side, sign in SIDES:
        found |= {f"{side} {name}": place for name, place in _leg(one, body, found["pelvis"], side, sign).items()}
        found |= {f"{side} {name}": place for name, place in _arm(one, body, found["neck"], side, sign).items()}
    return found


def _leg(one: Pose, body: Body, pelvis: Vector, side: str, sign: float) -> dict[str, Vector]:
    hip = pelvis + np.array([sign * body.hips, 0.0, 0.0])
    out, up, forward = (value * body.leg for value in getattr(one, f"{side}_foot"))
    knee_way = np.array([sign * (0.25 - 1.5 * one.knees_in[0]), 0.0, 1.0])
    wanted = np.array([sign * (body.hips + out), up, forward])
    knee, ankle = _two_bones(hip, wanted, body.thigh, body.shin, knee_way)
    toe = ankle + body.foot * np.array([sign * 0.3, -0.2, 0.9])
    return {"hip": hip, "knee": knee, "ankle": ankle, "toe": toe}


def _arm(one: Pose, body: Body, neck: Vector, side: str, sign: float) -> dict[str, Vector]:
    shoulder = neck + np.array([sign * body.shoulders, -0.03, 0.0])
    swing, spread, stretch = getattr(one, f"{side}_arm")
    way = np.array([sign * np.sin(spread), -np.cos(spread) * np.cos(swing), np.cos(spread) * np.sin(swing)])
    free = shoulder + way * stretch * body.arm
    floor = np.array([shoulder[0] * 1.15, 0.02, shoulder[2]])
    wanted = (1 - one.on_hands[0]) * free + one.on_hands[0] * floor
    elbow, hand = _two_bones(shoulder, wanted, body.upper_arm, body.forearm, np.array([sign * 0.6, 0.0, -1.0]))
    return {"shoulder": shoulder, "elbow": elbow, "hand": hand}


def _two_bones(start: Vector, wanted: Vector, first: float, second: float, way: Vector) -> tuple[Vector, Vector]:
    """Middle joint and end of two bones from `start` toward `wanted`, bent toward `way` (the law of cosines)."""
    line = wanted - start
    distance = max(float(np.linalg.norm(line)), 1e-6)
    along = line / distance
    reach = min(max(distance, abs(first - second) + 0.02), (first + second) * 0.999)
    share = (first**2 + reach**2 - second**2) / (2 * first * reach)
    aside = way - along * (way @ along)
    aside /= max(float(np.linalg.norm(aside)), 1e-6)
    middle = start + first * (share * along + np.sqrt(max(0.0, 1 - share**2)) * aside)
    return middle, start + along * reach
