"""Rendered films: the same everywhere, balanced, all beginning alike; and what can and cannot be told from them."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fieldtune.errors import UserError
from fieldtune.sources.figures.body import Body, joints
from fieldtune.sources.figures.exercises import EXERCISES, MOVES, STAND, Style
from fieldtune.sources.figures.films import FILMS_EACH, FRAMES_PER_SECOND, LABELS, Film, draw_film, make_films, plan
from fieldtune.sources.film_writer import write_film

from . import learn


def quiet(film: Film) -> Film:
    """The film without noise, and without what its number decides beside the move."""
    who = replace(film.performer, noise=0.0)
    return replace(film, performer=who, before=0.1, after=0.1, style=Style())


def test_moves_are_balanced_and_performers_have_several() -> None:
    films = plan(17 * 4, seed=1)
    assert set(Counter(film.move.label for film in films).values()) == {4}
    sizes = Counter(film.performer.name for film in films)
    assert max(sizes.values()) == FILMS_EACH and len(sizes) == 9
    assert plan(5, seed=1) == films[:5] != plan(5, seed=2)  # a larger count keeps the films that were there


def test_the_same_seed_gives_the_same_pixels() -> None:
    film = plan(3, seed=7)[2]
    frames = draw_film(film)
    assert frames.shape == (16, 96, 96, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, draw_film(plan(30, seed=7)[2]))
    assert not np.array_equal(frames, draw_film(plan(3, seed=8)[2]))


@pytest.mark.parametrize("move", MOVES, ids=[move.label for move in MOVES])
def test_a_film_begins_and_ends_in_the_same_stand(move: object) -> None:
    film = quiet(plan(1, seed=3)[0])
    films = [draw_film(replace(film, move=other)) for other in (MOVES[0], move)]  # type: ignore[arg-type]
    assert all(np.array_equal(frames[place], films[0][0]) for frames in films for place in (0, -1))
    assert np.abs(films[1].astype(int) - films[1][0]).max() > 60  # and moves in between


def test_moves_stay_in_the_picture() -> None:
    for film in plan(34, seed=5):
        frames = draw_film(quiet(film)).astype(int)
        moved = np.abs(frames - frames[0]).max(axis=3) > 40
        inside = moved[:, 1:-1, 1:-1].sum()
        assert moved.sum() - inside <= 0.02 * inside, film.move.label


@pytest.mark.parametrize("exercise", ["squat", "arm circles"])
def test_an_ordered_pair_is_the_same_frames_in_reverse(exercise: str) -> None:
    one, other = (move for move in MOVES if move.exercise == exercise and move.ordered)
    film = quiet(plan(1, seed=3)[0])
    forward, backward = (draw_film(replace(film, move=move)) for move in (one, other))
    apart = [np.abs(forward.astype(int) - other).mean() for other in (backward[::-1], backward)]
    assert apart[0] < 0.01 < 1 < apart[1]


def test_bones_keep_their_lengths() -> None:
    body = Body()
    for move in MOVES:
        for share in np.linspace(0, 1, 9):
            places = joints(move.pose_at(float(share), Style()), body)
            for side in ("left", "right"):
                for start, end, length in (
                    ("hip", "knee", body.thigh),
                    ("knee", "ankle", body.shin),
                    ("shoulder", "elbow", body.upper_arm),
                    ("elbow", "hand", body.forearm),
                ):
                    found = np.linalg.norm(places[f"{side} {start}"] - places[f"{side} {end}"])
                    assert found == pytest.approx(length, abs=1e-6), (move.label, share, side, start)
    assert joints(STAND, body)["left ankle"][1] == pytest.approx(0.0, abs=0.02)


def test_unknown_exercises_are_named() -> None:
    assert {film.move.exercise for film in plan(9, 1, ["lunge", "squat"])} == {"lunge", "squat"}
    with pytest.raises(UserError, match=r"'plank', which is not drawn; allowed: squat, lunge"):
        plan(9, 1, ["plank"])
    assert "cat-cow" in EXERCISES


def test_films_and_labels_are_written(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    done: list[int] = []
    home = make_films(tmp_path, 4, seed=1, made=done.append)
    assert done == [1, 2, 3, 4] and list(tmp_path.iterdir()) == [home]
    entries = json.loads((home / LABELS).read_text())
    assert [entry["video_path"] for entry in entries] == [f"./{number:08d}.mp4" for number in range(4)]
    film = plan(4, seed=1)[3]
    assert entries[3]["labels"] == [film.move.label] and entries[3]["worker_id"] == film.performer.name
    assert entries[3]["labels_descriptive"] == [film.move.description]
    path = home / film.name
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and float(stream.average_rate) == 8
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert frames.shape == (16, 96, 96, 3) and path.stat().st_size < 30_000
    assert np.abs(frames.astype(int) - draw_film(film)).mean() < 6  # of 256: lossy, yet the same film
    assert make_films(tmp_path, 4, seed=1, made=done.append) == home and len(done) == 4  # made once


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = draw_film(plan(1, seed=1)[0])
    write_film(tmp_path / "a.mp4", frames, FRAMES_PER_SECOND)
    write_film(tmp_path / "b.mp4", frames, FRAMES_PER_SECOND)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_two_at_once_make_one_set(tmp_path: Path) -> None:
    pytest.importorskip("av")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            make_films(tmp_path, 3, seed=1)
            status = 0
        finally:
            os._exit(status)
    home = make_films(tmp_path, 3, seed=1)
    assert os.waitpid(child, 0)[1] == 0
    assert list(tmp_path.iterdir()) == [home] and len(list(home.iterdir())) == 4


def direction(film: Film) -> str:
    return film.move.variation


@pytest.mark.parametrize("exercise", ["squat", "arm circles"])
def test_the_order_is_told_from_frames_in_order_alone(exercise: str) -> None:
    films = [film for film in plan(280, seed=11, exercises=["squat", "arm circles"]) if film.move.ordered]
    films = [film for film in films if film.move.exercise == exercise]
    told = {
        look.__name__: learn.accuracy(films, direction, look) for look in (learn.in_order, learn.shuffled, learn.first)
    }
    assert told["in_order"] >= 0.85, told
    assert told["shuffled"] <= 0.7 and told["first"] <= 0.7, told


@pytest.mark.slow
def test_all_moves_are_learned_from_films_and_not_from_first_frames() -> None:
    films = plan(680, seed=12)
    told = {
        look.__name__: learn.accuracy(films, lambda film: film.move.label, look)
        for look in (learn.in_order, learn.shuffled, learn.first)
    }
    assert told["in_order"] >= 0.85 and told["first"] <= 0.15, told  # one in 17 is 0.06
    assert told["shuffled"] <= told["in_order"] - 0.2, told
    exercise = learn.accuracy(films, lambda film: film.move.exercise, learn.in_order)
    assert exercise >= 0.85  # squats are 0.29
