"""Judo stills: in folders by technique, the same everywhere, learnable, and not from one pixel."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from fieldtune.sources.figures.films import performer
from fieldtune.sources.figures.throws import STILLS, TECHNIQUES, THROWS, draw_still, make_stills

from .learn import _ridge


def test_stills_lie_in_folders_by_technique(tmp_path: Path) -> None:
    folder = make_stills(tmp_path / "judo", 18, seed=1)
    known = {one["image"]: one for one in json.loads((folder / STILLS).read_text())}
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    assert sorted(known) == files and len(files) == 18
    assert Counter(fact["technique"] for fact in known.values()) == dict.fromkeys(TECHNIQUES, 3)
    assert all(name.startswith(f"{fact['technique']}/{fact['performer']}_") for name, fact in known.items())
    assert len({fact["performer"] for fact in known.values()}) == 3
    picture = np.asarray(Image.open(folder / files[0]))
    assert picture.shape == (96, 96, 3)
    before = (folder / files[0]).stat().st_mtime_ns
    assert make_stills(tmp_path / "judo", 18, seed=1) == folder and (folder / files[0]).stat().st_mtime_ns == before
    assert list((tmp_path / "judo").iterdir()) == [folder]


def test_the_same_numbers_give_the_same_pixels() -> None:
    first, again, other = (draw_still(THROWS[0], performer(0, 1), number, 1) for number in (4, 4, 5))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_techniques_are_learned_from_other_pairs() -> None:
    count = 360
    pictures = [draw_still(THROWS[i % 6], performer(i // 8, 2), i, 2) for i in range(count)]
    gray = np.stack([np.abs(picture.mean(axis=2) - np.median(picture)) for picture in pictures])
    features = gray.reshape(count, 24, 4, 24, 4).mean(axis=(2, 4)).reshape(count, -1)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    targets = np.eye(6)[[i % 6 for i in range(count)]]
    told = _ridge(features[:240], targets[:240], features[240:])
    share = float((told.argmax(1) == targets[240:].argmax(1)).mean())
    assert 0.4 <= share <= 0.98  # one in six is 0.17; a line through small pictures does not have them all
