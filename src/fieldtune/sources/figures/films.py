"""Short films of exercises, drawn and written as H.264, with their labels in the form of QEVD.

Everything follows from the seed: film i has the same pixels whatever the count. Eight films are one performer's, who
brings a body, clothes, a room and a camera; the moves are dealt evenly.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fieldtune.errors import UserError
from fieldtune.sources.figures.body import Body, joints
from fieldtune.sources.figures.draw import Camera, Look, Room, draw, noisy, random_look, random_room, room_picture
from fieldtune.sources.figures.exercises import EXERCISES, MOVES, Move, Style, label_backward
from fieldtune.sources.film_writer import write_film

LABELS = "fine_grained_labels.json"
EDITION = 2  # of pixels and labels: a change asks for another folder
SIZE = 96  # pixels, wide and high
FRAMES = 16
FRAMES_PER_SECOND = 8
FILMS_EACH = 8  # films of one performer

Frames = NDArray[np.uint8]  # [FRAMES, SIZE, SIZE, 3]


@dataclass(frozen=True, slots=True)
class Performer:
    """Somebody who is filmed. noise: of the camera, in levels of 256."""

    name: str
    body: Body
    look: Look
    room: Room
    camera: Camera
    noise: float


@dataclass(frozen=True, slots=True)
class Film:
    """What is to be filmed. before, after: share of the time that the performer stands still at either end."""

    number: int
    performer: Performer
    move: Move
    style: Style
    camera: Camera
    before: float
    after: float
    noise_seed: int

    @property
    def name(self) -> str:
        return f"{self.number:08d}.mp4"

    def label(self) -> dict[str, Any]:
        """Its entry in `LABELS`."""
        return {
            "video_path": f"./{self.name}",
            "labels": [self.move.label],
            "labels_descriptive": [self.move.description],
            "worker_id": self.performer.name,
            **({"label_backward": backward} if (backward := label_backward(self.move)) else {}),
        }


def performer(number: int, seed: int) -> Performer:
    """One who depends on the two numbers alone."""
    rng = random.Random(f"performer {seed} {number}")
    tall, legs, arms, wide = (rng.uniform(low, 2 - low) for low in (0.94, 0.95, 0.95, 0.88))
    body = Body(
        thigh=0.44 * tall * legs,
        shin=0.44 * tall * legs,
        half_back=0.25 * tall,
        upper_arm=0.29 * tall * arms,
        forearm=0.27 * tall * arms,
        shoulders=0.19 * wide,
        hips=0.1 * wide,
    )
    camera = Camera(rng.uniform(0.6, 0.95), rng.uniform(0.05, 0.2), rng.uniform(0.9, 1.03), up=rng.uniform(-0.03, 0.03))
    return Performer(
        f"performer-{number:03d}", body, random_look(rng), random_room(rng), camera, noise=rng.uniform(0.5, 3.0)
    )


def plan(count: int, seed: int, exercises: Sequence[str] = ()) -> list[Film]:
    """The films that are to be made; exercises: only these (empty: all). UserError names one that is not known."""
    moves = [move for move in MOVES if not exercises or move.exercise in exercises]
    if unknown := [name for name in exercises if name not in EXERCISES]:
        raise UserError(f"data.exercises has {unknown[0]!r}, which is not drawn; allowed: {', '.join(EXERCISES)}")
    films: list[Film] = []
    order: list[Move] = []
    for number in range(count):
        place = number % len(moves)
        if place == 0:
            order = random.Random(f"moves {seed} {number}").sample(moves, len(moves))
        films.append(_film(number, seed, order[place]))
    return films


def _film(number: int, seed: int, move: Move) -> Film:
    rng = random.Random(f"film {seed} {number}")
    who = performer(number // FILMS_EACH, seed)
    style = Style(reps=rng.choice((1, 2)), depth=rng.uniform(0.9, 1.0), left=rng.random() < 0.5)
    camera = replace(
        who.camera,
        yaw=who.camera.yaw + rng.uniform(-0.06, 0.06),
        right=rng.uniform(-0.08, 0.08),
        scale=who.camera.scale * rng.uniform(0.97, 1.03),
    )
    return Film(
        number, who, move, style, camera, rng.uniform(0, 0.12), rng.uniform(0, 0.12), noise_seed=rng.getrandbits(63)
    )


def draw_film(film: Film) -> Frames:
    """All frames: uint8 [16, 96, 96, 3], RGB. The first and the last one show the stand."""
    who = film.performer
    behind: Image.Image = room_picture(who.room, SIZE)
    noise = np.random.default_rng(film.noise_seed)
    frames = []
    for number in range(FRAMES):
        time = number / (FRAMES - 1)
        done = min(1.0, max(0.0, (time - film.before) / (1 - film.before - film.after)))
        places = joints(film.move.pose_at(done, film.style), who.body)
        frames.append(noisy(draw(behind, [(places, who.look)], film.camera), noise, who.noise))
    return np.stack(frames)


def make_films(
    folder: Path, count: int, seed: int, exercises: Sequence[str] = (), made: Callable[[int], None] = lambda count: None
) -> Path:
    """Make `count` films and their labels under `folder`; returns the folder of this set, made before or now.

    A set's folder is named by what decides it and is there only as a whole. made: called with the films done so far.
    """
    words = "-".join(name.replace(" ", "_") for name in exercises) or "all"
    home = folder / f"{words}-{count}-seed{seed}-edition{EDITION}"
    if home.exists():
        return home
    films = plan(count, seed, exercises)
    building = folder / f".{home.name}.{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        for film in films:
            write_film(building / film.name, draw_film(film), FRAMES_PER_SECOND)
            made(film.number + 1)
        text = json.dumps([film.label() for film in films], indent=1) + "\n"
        (building / LABELS).write_text(text, encoding="utf-8")
        building.rename(home)
    except OSError:
        if not home.exists():  # else another process was faster, with the same films
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return home
