"""Pictures and films as ablations show them: what is read of them is what was meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldtune.config import Ablation
from fieldtune.errors import UserError
from fieldtune.evaluation.ablation import GRAY, ablated, another_order
from fieldtune.records import Example, Media, Message
from fieldtune.sources.video import check, decode, probe, sample_16
from tests.sources.films import cut, number_of, turn_film, write_film

OF_FILMS = (Ablation.blank, Ablation.first_frame, Ablation.shuffled)


def row(*media: Media) -> Example:
    messages = (Message("user", (*media, "What is it?")), Message("assistant", ("A film.",)))
    return Example("mine-000000", messages, "mine", "mine-000000")


def film_of(path: Path, kind: Ablation, folder: Path, seed: int = 1) -> Path:
    """The film that stands in the place of another, with as many frames, as large and as fast."""
    (media,) = ablated(kind, folder, seed)(row(Media("video", str(path)))).media
    before, after = probe(path), check(Path(media.path))
    assert media.kind == "video" and Path(media.path).parent == folder
    assert (after.frames, after.width, after.height) == (before.frames, before.width, before.height)
    assert after.fps == pytest.approx(before.fps, rel=1e-3) and sample_16(after) == sample_16(before)
    return Path(media.path)


def test_a_film_shows_its_first_frame_all_the_time(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", range(7, 37))
    found = film_of(path, Ablation.first_frame, tmp_path / "shown")
    frames = decode(found, range(30))
    assert np.array_equal(frames, np.repeat(decode(path, [0]), 30, axis=0)) and number_of(frames[29]) == 7


@pytest.mark.parametrize("count", [2, 16, 150])
def test_a_film_is_shown_in_another_order(tmp_path: Path, count: int) -> None:
    path = write_film(tmp_path / "film.mp4", range(count), height=16)
    found = film_of(path, Ablation.shuffled, tmp_path / "shown")
    frames, own = decode(found, range(count)), decode(path, range(count))
    order = [number_of(frame) for frame in frames]
    assert sorted(order) == list(range(count)) != order
    assert np.array_equal(frames, own[order])  # every pixel


def test_the_order_is_drawn_with_the_seed_and_the_film(tmp_path: Path) -> None:
    first, second = (write_film(tmp_path / f"{start}.mp4", range(start, start + 16)) for start in (0, 16))
    orders = {}
    for name, path, seed in (("one", first, 1), ("again", first, 1), ("seed", first, 2), ("film", second, 1)):
        frames = decode(film_of(path, Ablation.shuffled, tmp_path / name, seed), range(16))
        orders[name] = [number_of(frame) % 16 for frame in frames]
    assert orders["one"] == orders["again"]
    assert len(set(map(tuple, orders.values()))) == 3
    assert another_order(1, "x") == [0] and another_order(2, "x") == [1, 0]


def test_gray_films_and_films_that_were_turned(tmp_path: Path) -> None:
    path = turn_film(write_film(tmp_path / "film.mp4", range(20), rate=25))
    assert (decode(film_of(path, Ablation.blank, tmp_path / "blank"), [0, 19]) == GRAY).all()
    shuffled = decode(film_of(path, Ablation.shuffled, tmp_path / "shuffled"), range(20))
    assert shuffled.sum() == decode(path, range(20)).sum()


def test_text_only_and_none_read_nothing(tmp_path: Path) -> None:
    example = row(Media("video", str(tmp_path / "gone.mp4")))
    assert ablated(Ablation.none, tmp_path / "shown", 1)(example) is example
    assert not ablated(Ablation.text_only, tmp_path / "shown", 1)(example).media
    assert not (tmp_path / "shown").exists()


@pytest.mark.parametrize("kind", OF_FILMS)
def test_broken_films_are_one_line(tmp_path: Path, kind: Ablation) -> None:
    path = cut(write_film(tmp_path / "film.mp4"), 0.3)
    with pytest.raises(UserError, match=f"evaluation.ablation={kind.name}: the video .*film.mp4") as refused:
        ablated(kind, tmp_path / "shown", 1)(row(Media("video", str(path))))
    assert "\n" not in str(refused.value)


def test_pictures_have_no_frames(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    example = row(Media("image", str(tmp_path / "a.png")))
    (gray,) = ablated(Ablation.blank, tmp_path / "shown", 1)(example).media
    with Image.open(gray.path) as picture:
        assert picture.size == (30, 20) and picture.getpixel((3, 3)) == GRAY
    for kind in (Ablation.first_frame, Ablation.shuffled):
        with pytest.raises(UserError, match=f"{kind.name}: .*a.png is an image, which has no frames; give"):
            ablated(kind, tmp_path / "shown", 1)(example)
