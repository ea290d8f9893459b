"""Pictures of every kind come as RGB, upright; what is none is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldtune.errors import UserError
from fieldtune.sources.pictures import MediaError, picture_size, read_image

from .films import bars, cut

PICTURE = bars(0b10110010, 33, 47)
GRAY = PICTURE[:, :, 0]


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("rgb.png", Image.fromarray(PICTURE)),
        ("gray.png", Image.fromarray(GRAY)),
        ("alpha.png", Image.fromarray(np.dstack([PICTURE, np.full_like(GRAY, 9)]))),
        ("gray_alpha.png", Image.fromarray(np.dstack([GRAY, GRAY]))),
        ("palette.gif", Image.fromarray(GRAY).convert("P")),
        ("sixteen.png", Image.fromarray(GRAY.astype(np.uint16) * 257)),
    ],
)
def test_every_kind_is_rgb(tmp_path: Path, name: str, picture: Image.Image) -> None:
    picture.save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert found.dtype == np.uint8 and found.flags.writeable
    assert np.array_equal(found, PICTURE)
    assert picture_size(tmp_path / name) == PICTURE.shape[:2]


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn to the left
    Image.fromarray(PICTURE).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(PICTURE, -1))
    assert picture_size(tmp_path / "turned.png") == (PICTURE.shape[1], PICTURE.shape[0])


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    others = [Image.fromarray(255 - PICTURE)]
    Image.fromarray(PICTURE).save(tmp_path / "film.gif", save_all=True, append_images=others)
    assert np.array_equal(read_image(tmp_path / "film.gif"), PICTURE)


def test_what_is_no_picture_is_one_line(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    cut(tmp_path / "cut.png", 0.5)
    (tmp_path / "text.jpg").write_text("words")
    (tmp_path / "folder.png").mkdir()
    for name in ("cut.png", "text.jpg", "folder.png", "missing.png"):
        with pytest.raises(MediaError, match=f"{name}: is not a picture that can be read") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        if name != "cut.png":  # its head is whole
            with pytest.raises(MediaError, match=f"{name}: is not a picture that can be read"):
                picture_size(tmp_path / name)


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"pictures need the package pillow; pip install 'fieldtune\[video\]'"):
        read_image(tmp_path / "rgb.png")
