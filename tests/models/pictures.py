"""Pictures of colored shapes, rows that ask about them, and the small models that see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fieldtune.config import Family, ModelConfig, TemplateKind, TokenizerKind
from fieldtune.data.encode import Encoded, Encoder
from fieldtune.models.tiny import ensure_tiny
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.models.vision import load_reader
from fieldtune.models.weights import Source, build
from fieldtune.records import Media, Message, file_sha256

SEEING = ["llava", "llava_next", "onevision", "qwen2vl", "smolvlm"]
SIZES = [(60, 60), (40, 90), (100, 44), (57, 56)]  # pixels: height, width


def write_picture(path: Path, size: tuple[int, int], seed: int) -> Path:
    """A few rectangles on a ground, of colors of the seed; PNG, so that every pixel comes back."""
    random = np.random.default_rng(seed)
    height, width = size
    pixels = np.full((height, width, 3), random.integers(0, 256, 3), dtype=np.uint8)
    for _ in range(4):
        top, left = random.integers(0, height - 4), random.integers(0, width - 4)
        pixels[top : top + height // 3, left : left + width // 3] = random.integers(0, 256, 3)
    Image.fromarray(pixels).save(path)
    return path


def pictures(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Media]:
    paths = [write_picture(folder / f"{number}.png", size, number) for number, size in enumerate(sizes)]
    return [Media("image", str(path), file_sha256(path)) for path in paths]


def turns(media: Sequence[Media], question: str, answer: str) -> tuple[Message, Message]:
    return Message("user", (*media, question)), Message("assistant", (answer,))


def seeing_config(name: str) -> ModelConfig:
    return ModelConfig(
        name=f"{name}_tiny",
        family=Family.vision_language,
        weights=f"tiny:{name}",
        tokenizer=TokenizerKind.from_weights,
        template=TemplateKind.chat,
        size="tiny",
    )


def seeing(name: str, cache: Path) -> Any:
    return build(seeing_config(name), Source(ensure_tiny(name, cache)))


def seeing_encoder(name: str, cache: Path, frames: int | None = None) -> Encoder:
    folder = ensure_tiny(name, cache)
    tokenizer = load_tokenizer(TokenizerKind.from_weights, folder)
    return Encoder(tokenizer, TemplateKind.chat, load_reader(folder, tokenizer, frames))


QUESTIONS = ("What is it?", "Which color has the ground of it?", "What is it not?")


def rows_that_see(encoder: Encoder, folder: Path) -> list[Encoded]:
    """Several questions about each of three pictures, one picture there under two names, and a row of text alone."""
    media = pictures(folder)
    twin = Media("image", str(write_picture(folder / "twin.png", SIZES[0], 0)))
    rows = [
        turns([one], question, f"It is {n} {question}") for n, one in enumerate(media[:3]) for question in QUESTIONS
    ]
    rows += [turns([twin], QUESTIONS[0], "Another answer."), turns([], QUESTIONS[0], "Text alone.")]
    return [encoder.row(row) for row in rows]
