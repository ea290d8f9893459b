"""Short films with sizes and rates of their own, and rows that ask about them."""

from __future__ import annotations

from pathlib import Path

from fieldtune.data.encode import Encoded, Encoder
from fieldtune.records import Media, file_sha256
from tests.models.pictures import QUESTIONS, pictures, turns
from tests.sources.films import write_film

TAKING_FILMS = ["qwen2vl", "qwen25vl", "smolvlm", "onevision"]
FRAMES = 4  # of a film that the small models are shown

SHAPES = [(30, 10, 48, 64), (25, 5, 96, 96), (64, 8, 40, 120)]  # frames, frames a second, height, width


def films(folder: Path) -> list[Media]:
    paths = [
        write_film(folder / f"{n}.mp4", range(10 * n, 10 * n + frames), rate=rate, height=height, width=width)
        for n, (frames, rate, height, width) in enumerate(SHAPES)
    ]
    return [Media("video", str(path), file_sha256(path)) for path in paths]


def rows_with_films(encoder: Encoder, folder: Path) -> list[Encoded]:
    """Several questions about each of two films and one picture, and a row of text alone."""
    media = [*films(folder)[:2], pictures(folder)[1]]
    rows = [turns([one], question, f"It is {n} {question}") for n, one in enumerate(media) for question in QUESTIONS]
    rows.append(turns([], QUESTIONS[0], "Text alone."))
    return [encoder.row(row) for row in rows]
