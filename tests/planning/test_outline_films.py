"""What a Mobile-VideoGPT is said to count and to hold, against one that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fieldtune.config import AdapterConfig, AdapterKind, Config, HardwareConfig, Precision, TrainerConfig, VisionPart
from fieldtune.data.batches import Window, window_with_media
from fieldtune.data.encode import Encoder
from fieldtune.data.packing import pack_window
from fieldtune.errors import UserError
from fieldtune.models.adapters import adapt, parameter_counts
from fieldtune.models.film_outline import blank_films
from fieldtune.models.films import FilmReader
from fieldtune.models.ledger import counting
from fieldtune.models.looking_outline import held_looking
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.outline import counts, held_by, outline
from fieldtune.models.real_inputs import pixels
from fieldtune.records import Media
from fieldtune.training.window import backward_window
from tests.models.pictures import QUESTIONS, seeing, seeing_encoder, turns
from tests.sources.films import write_film

NAME = "mobile_videogpt"
FULL = AdapterConfig(kind=AdapterKind.none, vision=VisionPart.full)
LORA = AdapterConfig(kind=AdapterKind.lora, rank=4, vision=VisionPart.lora, projector=VisionPart.lora)
TOWERS_FROZEN = AdapterConfig(kind=AdapterKind.lora, rank=4)
ADAPTERS = pytest.mark.parametrize("adapter", [FULL, LORA, TOWERS_FROZEN], ids=["full", "lora", "frozen"])


def film_reader(encoder: Encoder) -> FilmReader:
    assert isinstance(encoder.reader, FilmReader)
    return encoder.reader


def one_film(folder: Path, number: int = 0) -> Media:
    return Media("video", str(write_film(folder / f"{number}.mp4", range(20 * number, 20 * number + 20))))


def window(encoder: Encoder, folder: Path) -> Window:
    """Several questions about each of two films."""
    films = [one_film(folder, number) for number in range(2)]
    rows = [turns([film], question, f"It is {n}") for n, film in enumerate(films) for question in QUESTIONS]
    return window_with_media(pack_window([encoder.row(row) for row in rows], 3, share=True))


@ADAPTERS
def test_an_outline_counts_both_towers_and_projectors(adapter: AdapterConfig, tiny_cache: Path) -> None:
    model = adapt(seeing(NAME, tiny_cache), adapter)
    found = counts(outline(unwrapped(model).config, adapter))
    assert (found.parameters, found.trainable) == parameter_counts(model)
    assert found == counts(model)
    assert 0 < found.seeing_trained <= found.seeing < found.parameters


@ADAPTERS
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "decoded"])
def test_a_trace_looks_as_the_model_does(adapter: AdapterConfig, kept: bool, tiny_cache: Path, tmp_path: Path) -> None:
    """Living tensors over a whole optimizer step; films in a common beginning."""
    encoder = seeing_encoder(NAME, tiny_cache)
    config = Config(adapter=adapter, trainer=TrainerConfig(), hardware=HardwareConfig())
    if kept:
        film_reader(encoder).kept = blank_films(config, film_reader(encoder).shape)
    made = window(encoder, tmp_path)
    model = adapt(seeing(NAME, tiny_cache), adapter)
    settings = unwrapped(model).config
    network = LanguageModelLoss(model).train()
    looked_at = pixels([made["trunk"], *made["micro_batches"]])
    assert looked_at
    with counting([*network.parameters(), *looked_at]) as ledger:
        backward_window(network, made, lambda loss: loss.backward())
    real = max(peak.total for peak in ledger.peaks().values())
    held = held_by(settings, adapter, Precision.fp32, made)
    assert max(sum(parts.values()) for parts in held.values()) == pytest.approx(real, rel=0.06)


def test_looking_before_training_is_counted(tiny_cache: Path, tmp_path: Path) -> None:
    model = seeing(NAME, tiny_cache)
    shape = model.shape
    film = torch.zeros(2, shape.frames, 3, shape.image_size, shape.image_size)
    (shown,) = seeing_encoder(NAME, tiny_cache).row(turns([one_film(tmp_path)], QUESTIONS[0], "It is 0")).media
    with torch.no_grad(), counting([*model.parameters(), film]) as ledger:
        model.look(*film)
    real = film.nbytes + max(peak.total for peak in ledger.peaks().values())
    assert held_looking(model.config, shown) == pytest.approx(real, rel=0.06)


def test_four_bits_are_refused_before_anything_is_read(tiny_cache: Path) -> None:
    with pytest.raises(UserError, match="adapter=qlora with a Mobile-VideoGPT is not done here"):
        outline(seeing(NAME, tiny_cache).config, AdapterConfig(kind=AdapterKind.qlora, bits=4))
