"""Judo throws as stills: two figures in the moment of the throw, in folders by technique.

`make_stills(folder, ...)` writes <technique>/<performer>_<number>.png and stills.json, which describes each file as
`data=judo` reads it. The moments follow the techniques' descriptions in the Kodokan's list.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fieldtune.sources.figures.body import Body, Pose, Vector, joints, pose
from fieldtune.sources.figures.draw import Camera, draw, noisy, random_room, room_picture
from fieldtune.sources.figures.films import FILMS_EACH, Performer, performer

STILLS = "stills.json"
EDITION = 1  # of the drawing: a change of the pixels asks for another folder
SIZE = 96  # pixels, wide and high


@dataclass(frozen=True, slots=True)
class Placed:
    """A pose and where it stands. pitch: tipped forward, roll: tipped to the right, yaw: turned to the left; radians.

    at: of the point that it is turned about, a body's middle, in meters.
    """

    pose: Pose
    at: tuple[float, float, float]
    pitch: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0


@dataclass(frozen=True, slots=True)
class Throw:
    """A technique: who throws (tori) and who is thrown (uke), tori facing along z."""

    technique: str
    tori: Placed
    uke: Placed


_PULL = (1.2, 0.2, 0.8)
_GRIP = (1.35, 0.1, 0.85)
_BENT = pose(hips=(0.86, -0.1), back=(0.9, 1.25, 1.2), feet=(0.12, 0.0, 0.0), arms=(0.9, 0.15, 0.75))
_FLYING = pose(back=(0.15, 0.3, 0.4), left_foot=(0.1, 0.02, 0.15), right_foot=(0.15, 0.1, 0.3), arms=(1.9, 0.3, 0.9))
_UPRIGHT = pose(hips=(0.95, 0.0), back=(0.1, 0.15, 0.1), arms=_GRIP)

THROWS = (
    # Over the shoulder: tori bends low, uke's back rolls over tori's back, legs up.
    Throw("seoi-nage", Placed(_BENT, (0.0, 0.88, 0.0)), Placed(_FLYING, (0.0, 1.32, 0.12), pitch=2.0)),
    # Over the hip: tori more upright and turned, uke lies across the hips.
    Throw(
        "o-goshi",
        Placed(pose(_BENT, back=(0.45, 0.6, 0.5), left_arm=(-0.6, 0.9, 0.8)), (0.0, 0.88, 0.0), yaw=0.3),
        Placed(_FLYING, (0.05, 1.02, -0.22), pitch=1.15, roll=0.5),
    ),
    # The major outer reap: both upright, chest to chest, uke tips backward over the reaped leg.
    Throw(
        "o-soto-gari",
        Placed(pose(_UPRIGHT, back=(0.4, 0.5, 0.4), right_foot=(0.1, 0.3, -0.55), arms=_PULL), (0.22, 0.88, -0.05)),
        Placed(pose(_UPRIGHT, right_foot=(0.1, 0.25, 0.5)), (-0.2, 0.82, 0.3), yaw=np.pi, pitch=-0.75),
    ),
    # The inner thigh: tori on one leg, the other one high behind, uke lifted on it and tipped forward.
    Throw(
        "uchi-mata",
        Placed(pose(_BENT, hips=(0.93, 0.0), back=(1.2, 1.4, 1.3), right_foot=(0.1, 0.95, -0.75)), (0.0, 0.9, 0.1)),
        Placed(pose(_FLYING, feet=(0.35, 0.0, 0.0)), (0.05, 1.15, -0.3), pitch=0.95),
    ),
    # The circle throw: tori lies on the back, a foot in uke's belly, uke flies over.
    Throw(
        "tomoe-nage",
        Placed(
            pose(feet=(0.05, 0.25, 0.35), right_foot=(0.02, 0.35, 0.8), arms=(1.6, 0.2, 0.9)),
            (0.0, 0.2, 0.1),
            pitch=-1.5,
        ),
        Placed(_FLYING, (0.0, 1.15, -0.05), yaw=np.pi, pitch=1.75),
    ),
    # The advanced foot sweep: both upright and facing, the sole takes uke's foot as it steps.
    Throw(
        "de-ashi-harai",
        Placed(pose(_UPRIGHT, left_foot=(-0.25, 0.08, 0.5)), (0.0, 0.88, -0.28)),
        Placed(
            pose(_UPRIGHT, right_foot=(-0.35, 0.2, 0.25), left_foot=(0.1, 0.0, -0.1)),
            (0.0, 0.88, 0.4),
            yaw=np.pi,
            roll=0.35,
        ),
    ),
)
TECHNIQUES = tuple(throw.technique for throw in THROWS)
_GI_WHITE, _GI_BLUE = (235, 235, 230), (40, 70, 150)


def make_stills(folder: Path, count: int, seed: int, made: Callable[[int], None] = lambda count: None) -> Path:
    """Make `count` pictures under `folder`, the techniques in turn, eight of one pair; returns the folder of this set,
    made before or now.

    The same seed gives the same pixels. A set's folder is named by what decides it and is there only as a whole. made:
    called with the pictures done so far.
    """
    home = folder / f"stills-{count}-seed{seed}-edition{EDITION}"
    if home.exists():
        return home
    building = folder / f".{home.name}.{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        known = []
        for number in range(count):
            throw, who = THROWS[number % len(THROWS)], performer(number // FILMS_EACH, seed)
            name = f"{throw.technique}/{who.name}_{number:06d}.png"
            (building / throw.technique).mkdir(exist_ok=True)
            Image.fromarray(draw_still(throw, who, number, seed)).save(building / name)
            known.append({"image": name, "technique": throw.technique, "performer": who.name})
            made(number + 1)
        (building / STILLS).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        building.rename(home)
    except OSError:
        if not home.exists():  # else another process was faster, with the same pictures
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return home


def draw_still(throw: Throw, who: Performer, number: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """uint8 [96, 96, 3], RGB: a throw by this performer; picture `number` differs in camera, timing and partner."""
    rng = random.Random(f"still {seed} {number}")
    white = replace(who.look, top=_GI_WHITE, legs=_GI_WHITE)
    blue = replace(who.look, top=_GI_BLUE, legs=_GI_BLUE)
    looks = (white, blue) if rng.random() < 0.5 else (blue, white)
    figures = [
        (_placed(_loosened(placed, rng), body), look)
        for placed, body, look in zip((throw.tori, throw.uke), (who.body, Body()), looks, strict=True)
    ]
    # From either side: what tells a technique is how the two stand to each other.
    yaw = rng.choice((-1.0, 1.0)) * rng.uniform(1.0, 1.5)
    camera = Camera(yaw, rng.uniform(0.05, 0.2), rng.uniform(0.92, 1.05), rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0))
    room = room_picture(random_room(rng), SIZE)
    return noisy(draw(room, figures, camera), np.random.default_rng(rng.getrandbits(63)), who.noise)


def _loosened(placed: Placed, rng: random.Random) -> Placed:
    """A little earlier or later, a little aside: no two throws are the same."""
    x, y, z = (value + rng.uniform(-0.05, 0.05) for value in placed.at)
    turn = {name: getattr(placed, name) + rng.uniform(-0.12, 0.12) for name in ("pitch", "roll", "yaw")}
    swing, spread = rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1)
    arms = {
        name: (first + swing, second + spread, stretch)
        for name, (first, second, stretch) in (("left_arm", placed.pose.left_arm), ("right_arm", placed.pose.right_arm))
    }
    return replace(placed, pose=replace(placed.pose, **arms), at=(x, y, z), **turn)


def _placed(placed: Placed, body: Body) -> dict[str, Vector]:
    """Joints turned about the middle of the body, then moved to their place."""
    middle = np.array([0.0, body.leg, 0.0])
    turn = _about_y(placed.yaw) @ _about_z(placed.roll) @ _about_x(placed.pitch)
    return {name: turn @ (place - middle) + np.array(placed.at) for name, place in joints(placed.pose, body).items()}


def _about_x(angle: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What is above goes forward."""
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def _about_y(angle: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


def _about_z(angle: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
