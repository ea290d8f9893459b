"""What is kept of pictures and films of models that see both is what would be made of the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fieldtune.config import Accelerator
from fieldtune.data.encode import Encoder
from fieldtune.data.load import Rows
from fieldtune.data.media_cache import MediaCache
from fieldtune.models.kept_pixels import LEVELS, MOST, KeptPixels, packed, unpacked
from fieldtune.models.vision_reader import Reader
from fieldtune.ranks import Rank
from fieldtune.records import Example, Media
from tests.models.pictures import SEEING, pictures, seeing_encoder, turns
from tests.models.seen_films import FRAMES, TAKING_FILMS, films
from tests.sources.films import cut, write_film


def media_rows(encoder: Encoder, media: list[Media]) -> Rows:
    asked = [turns([one], "What is it?", f"It is {number}.") for number, one in enumerate(media)]
    examples = [Example(f"row-{number}", row, "here", f"row-{number}") for number, row in enumerate(asked)]
    return Rows(examples, [encoder.row(row) for row in asked], [])


@pytest.mark.parametrize("name", dict.fromkeys([*SEEING, *TAKING_FILMS]))
def test_pixels_are_kept_bit_for_bit(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    encoder = seeing_encoder(name, tiny_cache)
    reader = encoder.reader
    assert isinstance(reader, Reader)
    media = [*pictures(tmp_path)[:3], *(films(tmp_path) if name in TAKING_FILMS else [])]
    rows = media_rows(encoder, media)
    shown = [row.media[0] for row in rows.encoded]
    wanted = [reader.pixels(one) for one in shown]
    for made in (len(media), 0):
        cache = MediaCache(tmp_path / "media")
        kept = KeptPixels(cache, reader)
        assert kept.filled([rows], Rank(), Accelerator.cpu)[0].encoded == rows.encoded
        for one, pixels in zip(shown, wanted, strict=True):
            found = kept.tensors(one)
            assert found.keys() == pixels.keys()
            for key, value in pixels.items():
                assert found[key].dtype == value.dtype and torch.equal(found[key], value), (name, key)
        assert cache.counts.made == made
    numbers = sum(reader.values(one) for one in shown)
    assert 0.9 * numbers <= cache.used() <= 1.1 * numbers + 16_384 * len(shown)


def test_other_frames_are_another_entry(tiny_cache: Path, tmp_path: Path) -> None:
    (film, *_) = films(tmp_path)
    cache = MediaCache(tmp_path / "media")
    for number, frames in enumerate((2, FRAMES, 2)):
        encoder = seeing_encoder("qwen2vl", tiny_cache, frames)
        assert isinstance(encoder.reader, Reader)
        KeptPixels(cache, encoder.reader).tensors(media_rows(encoder, [film]).encoded[0].media[0])
        assert cache.counts.made == min(number + 1, 2)


def test_a_broken_film_costs_its_row(tiny_cache: Path, tmp_path: Path) -> None:
    """Its header can be read, but not its end."""
    path = write_film(tmp_path / "one.mkv", range(90, 120), container={"live": "1"})
    encoder = seeing_encoder("qwen2vl", tiny_cache, FRAMES)
    assert isinstance(encoder.reader, Reader)
    rows = media_rows(encoder, [*films(tmp_path)[:1], Media("video", str(path))])
    cut(path, 0.5)
    kept = KeptPixels(MediaCache(tmp_path / "media"), encoder.reader)
    (left,) = kept.filled([rows], Rank(), Accelerator.cpu)
    assert [example.id for example in left.examples] == ["row-0"]
    assert left.left_out[0][0] == "row-1" and "one.mkv" in left.left_out[0][1]


def test_values_that_are_too_many_are_kept_as_they_are() -> None:
    many = torch.linspace(0, 1, 3 * 20 * 20).view(1, 3, 20, 20)
    assert packed({"a": many}).keys() == {"a"}
    few = torch.randint(0, LEVELS, (2, 3, 20, 20)).float() / 7
    found = packed({"a": few, "mask": torch.ones(1, 20, 20, dtype=torch.int64), "grid": torch.tensor([[2, 3, 4]])})
    assert {name: value.dtype for name, value in found.items()} == {
        "a": torch.uint8,
        "a" + MOST: torch.float32,
        "mask": torch.bool,
        "grid": torch.int64,
    }
    assert torch.equal(unpacked(found)["a"], few)
