"""What a model that sees is said to count and to hold, against one that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.config import AdapterConfig, AdapterKind, Precision, VisionPart
from fieldtune.data.batches import window_with_media
from fieldtune.data.packing import pack_window
from fieldtune.models.adapters import adapt, parameter_counts
from fieldtune.models.kept_looks import blank_looks
from fieldtune.models.ledger import counting
from fieldtune.models.looking_outline import held_looking
from fieldtune.models.looks import look
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.outline import counts, held_by, outline
from fieldtune.models.real_inputs import pixels
from fieldtune.models.recompute import recompute_layers
from fieldtune.models.vision_reader import Reader
from fieldtune.training.window import backward_window

from ..models.pictures import QUESTIONS, SEEING, pictures, rows_that_see, seeing, seeing_encoder, turns

FULL = AdapterConfig(kind=AdapterKind.none, vision=VisionPart.full)
LORA = AdapterConfig(kind=AdapterKind.lora, rank=4, vision=VisionPart.lora)
FROZEN = AdapterConfig(kind=AdapterKind.lora, rank=4, projector=VisionPart.frozen)
TRAINED = AdapterConfig(kind=AdapterKind.lora, rank=4)


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("adapter", [FULL, LORA, FROZEN], ids=["full", "lora", "frozen"])
def test_an_outline_counts_tower_and_projector(name: str, adapter: AdapterConfig, tiny_cache: Path) -> None:
    model = adapt(seeing(name, tiny_cache), adapter)
    settings = unwrapped(model).config
    found = counts(outline(settings, adapter))
    assert (found.parameters, found.trainable) == parameter_counts(model)
    assert found == counts(model)
    assert 0 < found.seeing < found.parameters
    assert (found.seeing_trained > 0) == (adapter is not FROZEN)


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("adapter", [FULL, FROZEN], ids=["full", "frozen"])
@pytest.mark.parametrize("recompute", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["kept", "recomputed"])
def test_a_trace_looks_as_the_model_does(
    name: str, adapter: AdapterConfig, recompute: bool, tiny_cache: Path, tmp_path: Path
) -> None:
    held_as_traced(name, adapter, recompute, tiny_cache, tmp_path, None)


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize(
    "adapter", [TRAINED, pytest.param(FROZEN, marks=pytest.mark.slow)], ids=["projector", "frozen"]
)
def test_a_trace_goes_on_from_looks_as_the_model_does(
    name: str, adapter: AdapterConfig, tiny_cache: Path, tmp_path: Path
) -> None:
    held_as_traced(name, adapter, False, tiny_cache, tmp_path, Precision.fp32)


def held_as_traced(
    name: str, adapter: AdapterConfig, recompute: bool, cache: Path, folder: Path, looks: Precision | None
) -> None:
    """Living tensors over a whole optimizer step: pictures in a common beginning and in micro-batches.

    looks: of what is kept of pictures; None: the tower looks in the step.
    """
    encoder = seeing_encoder(name, cache)
    assert isinstance(encoder.reader, Reader)
    if looks is not None:
        encoder.reader.kept = blank_looks(encoder.reader, looks)
    rows = rows_that_see(encoder, folder)
    window = window_with_media(pack_window(rows, 4, share=True))
    model = adapt(seeing(name, cache), adapter)
    settings = unwrapped(model).config
    network = LanguageModelLoss(model).train()
    if recompute:
        recompute_layers(network.model, same_dropout=False)
    looked_at = pixels([window["trunk"], *window["micro_batches"]])
    assert looked_at
    with counting([*network.parameters(), *looked_at]) as ledger:
        backward_window(network, window, lambda loss: loss.backward())
    real = max(peak.total for peak in ledger.peaks().values())
    held = held_by(settings, adapter, Precision.fp32, window, recompute=recompute)
    assert max(sum(parts.values()) for parts in held.values()) == pytest.approx(real, rel=0.06)


@pytest.mark.parametrize("name", [*SEEING, "qwen25vl"])
def test_looking_before_training_is_counted(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    model, encoder = seeing(name, tiny_cache), seeing_encoder(name, tiny_cache)
    (shown,) = encoder.row(turns(pictures(tmp_path)[:1], QUESTIONS[0], "It is 0")).media
    pixels_of = shown.reader.must_see(shown)
    with counting([*model.parameters(), *pixels_of.values()]) as ledger:
        look(model, pixels_of)
    real = sum(one.nbytes for one in pixels_of.values()) + max(peak.total for peak in ledger.peaks().values())
    assert held_looking(model.config, shown) == pytest.approx(real, rel=0.06)
