"""Ridge regression on small gray frames: what a film shows to something that is not one of our networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fieldtune.sources.figures.films import SIZE, Film, Frames, draw_film

Array = NDArray[np.float64]
BLOCK = 6  # pixels, wide and high, that become one


def small(frames: Frames) -> Array:
    """Gray frames of 16 x 16: float [16, 256]."""
    gray = frames.astype(np.float64).mean(axis=3)
    side = SIZE // BLOCK
    return gray.reshape(-1, side, BLOCK, side, BLOCK).mean(axis=(2, 4)).reshape(len(frames), -1)


def in_order(frames: Array, rng: np.random.Generator) -> Array:
    """How each frame differs from the first one, one after the other."""
    return (frames - frames[0]).ravel()


def shuffled(frames: Array, rng: np.random.Generator) -> Array:
    """The same frames in a random order."""
    return rng.permutation(frames - frames[0]).ravel()


def first(frames: Array, rng: np.random.Generator) -> Array:
    """The first frame alone."""
    return frames[0]


def accuracy(
    films: Sequence[Film], what: Callable[[Film], str], look: Callable[[Array, np.random.Generator], Array]
) -> float:
    """Share of the films of the last third of the performers that is told right, after the others were learned from."""
    performers = sorted({film.performer.name for film in films})
    held_out = set(performers[-len(performers) // 3 :])
    rng = np.random.default_rng(0)
    features = np.stack([look(seen(film), rng) for film in films])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    names = sorted({what(film) for film in films})
    targets = np.eye(len(names))[[names.index(what(film)) for film in films]]
    test = np.array([film.performer.name in held_out for film in films])
    told = _ridge(features[~test], targets[~test], features[test])
    return float((told.argmax(1) == targets[test].argmax(1)).mean())


_SEEN: dict[Film, Array] = {}


def seen(film: Film) -> Array:
    """Its small frames, drawn once."""
    if film not in _SEEN:
        _SEEN[film] = small(draw_film(film))
    return _SEEN[film]


def _ridge(known: Array, targets: Array, asked: Array, strength: float = 0.05) -> Array:
    mean, offset = known.mean(0), targets.mean(0)
    kernel = (known - mean) @ (known - mean).T
    weights = np.linalg.solve(kernel + strength * np.eye(len(known)), targets - offset)
    return (asked - mean) @ (known - mean).T @ weights + offset
