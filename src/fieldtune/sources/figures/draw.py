"""Bones onto pictures: a camera, a room, capsules in the order of their depth, smooth edges by drawing larger."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fieldtune.sources.figures.body import BONES, Vector

Color = tuple[int, int, int]
LARGER = 3  # times as wide and high as the picture that comes out: the mean of 9 points is one
CENTER = 0.92  # meters over the floor that the camera looks at
SHOWN = 2.3  # meters that a picture is high at scale 1


@dataclass(frozen=True, slots=True)
class Camera:
    """From where it is seen. yaw, pitch: radians; yaw 0 looks into the face. right, up: of the figure, in meters."""

    yaw: float = 0.75
    pitch: float = 0.12
    scale: float = 1.0
    right: float = 0.0
    up: float = 0.0

    def see(self, place: Vector) -> tuple[float, float, float]:
        """Right and up in the picture, in meters from its center, and how near."""
        x, y, z = place
        near = -x * np.sin(self.yaw) + z * np.cos(self.yaw)
        across = x * np.cos(self.yaw) + z * np.sin(self.yaw)
        height = (y - CENTER) * np.cos(self.pitch) - near * np.sin(self.pitch)
        return float((across + self.right) * self.scale), float((height + self.up) * self.scale), float(near)


@dataclass(frozen=True, slots=True)
class Look:
    """What somebody wears. thickness: of a limb, in meters."""

    skin: Color
    top: Color
    legs: Color
    thickness: float = 0.085


@dataclass(frozen=True, slots=True)
class Room:
    """What stands behind: a wall, a floor and pieces of furniture (left, top, right, bottom as shares, color)."""

    wall: Color
    floor: Color
    edge: float  # share of the height at which the floor begins
    pieces: Sequence[tuple[tuple[float, float, float, float], Color]] = ()


def random_look(rng: random.Random) -> Look:
    """Somebody's looks: dark or light skin, a colored top, dark trousers or light ones."""
    tone = rng.uniform(0.35, 1.0)
    skin = (int(235 * tone), int(190 * tone), int(160 * tone))
    return Look(skin, _vivid(rng, 0.85), _vivid(rng, 0.5), rng.uniform(0.075, 0.1))


def random_room(rng: random.Random) -> Room:
    """A room in pale colors, so that a figure stands out of it."""
    wall, floor = _pale(rng), _pale(rng, 0.8)
    pieces = []
    for _ in range(rng.randrange(3)):
        left, width, top = rng.uniform(0, 0.85), rng.uniform(0.08, 0.22), rng.uniform(0.05, 0.5)
        pieces.append(((left, top, left + width, top + rng.uniform(0.1, 0.35)), _pale(rng, 0.9)))
    return Room(wall, floor, rng.uniform(0.74, 0.86), tuple(pieces))


def _vivid(rng: random.Random, value: float) -> Color:
    """A strong color; value: of its brightest channel, 0 to 1."""
    channels = [value, rng.uniform(0.05, 0.75) * value, rng.uniform(0.0, 0.3) * value]
    rng.shuffle(channels)
    red, green, blue = (int(255 * channel) for channel in channels)
    return red, green, blue


def _pale(rng: random.Random, value: float = 1.0) -> Color:
    red, green, blue = (int(value * rng.uniform(190, 245)) for _ in range(3))
    return red, green, blue


def room_picture(room: Room, size: int) -> Image.Image:
    """The empty room, `LARGER` times `size` pixels wide and high; figures are drawn onto a copy."""
    side = size * LARGER
    picture = Image.new("RGB", (side, side), room.wall)
    pen = ImageDraw.Draw(picture)
    for corners, color in room.pieces:
        pen.rectangle([corner * side for corner in corners], fill=color)
    pen.rectangle([0, room.edge * side, side, side], fill=room.floor)
    return picture


def draw(
    behind: Image.Image, figures: Sequence[tuple[Mapping[str, Vector], Look]], camera: Camera
) -> NDArray[np.uint8]:
    """Figures (joints and looks) before a room: uint8 [size, size, 3]."""
    picture = behind.copy()
    pen = ImageDraw.Draw(picture)
    side = picture.width
    pixels = side / SHOWN
    for _, shape in sorted(_shapes(figures, camera), key=lambda item: item[0]):
        (first, second), width, color = shape
        ends = [(side / 2 + x * pixels, side / 2 - y * pixels) for x, y in (first, second)]
        half = width * camera.scale * pixels / 2
        pen.line(ends, fill=color, width=max(1, round(2 * half)))
        for x, y in ends:
            pen.ellipse([x - half, y - half, x + half, y + half], fill=color)
    return np.asarray(picture.reduce(LARGER))


Shape = tuple[tuple[tuple[float, float], tuple[float, float]], float, Color]


def _shapes(figures: Sequence[tuple[Mapping[str, Vector], Look]], camera: Camera) -> Iterator[tuple[float, Shape]]:
    """(how near, (ends, thickness, color)) of every bone and head."""
    for places, look in figures:
        seen = {name: camera.see(place) for name, place in places.items()}
        for start, end, part in BONES:
            (x1, y1, near1), (x2, y2, near2) = seen[start], seen[end]
            trunk = part == "top" and start in ("pelvis", "back")
            color = _shaded(getattr(look, part), start)
            yield (near1 + near2) / 2, (((x1, y1), (x2, y2)), look.thickness * (1.9 if trunk else 1.0), color)
        x, y, near = seen["head"]
        yield near, (((x, y), (x, y)), look.thickness * 2.4, look.skin)


def _shaded(color: Color, joint: str) -> Color:
    """The left side is a little darker, or one could not tell it from the right."""
    if not joint.startswith("left"):
        return color
    red, green, blue = (int(channel * 0.72) for channel in color)
    return red, green, blue


def noisy(picture: NDArray[np.uint8], noise: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """With a camera's noise; strength: its standard deviation, in levels of 256."""
    grain = noise.normal(0.0, strength, picture.shape)
    return np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)
