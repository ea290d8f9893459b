"""What frozen towers see is kept, and what follows from it is what the model makes of the pixels itself."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldtune.config import Accelerator, Precision
from fieldtune.data.media import CONTENTS, Shown, media_of
from fieldtune.data.media_cache import MediaCache
from fieldtune.models.kept_looks import KeptLooks
from fieldtune.models.looks import are_looks, embedded, look
from fieldtune.models.vision_parts import parameters_in, projector_of
from fieldtune.models.vision_reader import Reader
from fieldtune.ranks import Rank
from tests.models.pictures import SEEING, pictures, seeing, seeing_encoder
from tests.models.seen_films import FRAMES, TAKING_FILMS, films
from tests.models.test_kept_pixels import media_rows

FAMILIES = list(dict.fromkeys([*SEEING, *TAKING_FILMS]))


def shown_to(name: str, cache: Path, folder: Path) -> tuple[Any, Reader, Any, list[Shown]]:
    """A model, its reader, rows of three pictures and three films, and these."""
    encoder = seeing_encoder(name, cache, FRAMES if name in TAKING_FILMS else None)
    assert isinstance(encoder.reader, Reader)
    rows = media_rows(encoder, [*pictures(folder)[:3], *(films(folder) if name in TAKING_FILMS else [])])
    return seeing(name, cache), encoder.reader, rows, [row.media[0] for row in rows.encoded]


def placed(model: Any, shown: list[Shown]) -> Tensor:
    """What stands at the places of pictures and films, all in one pass."""
    ids = torch.cat([torch.from_numpy(one.ids) for one in shown])[None]
    media = media_of(ids)
    assert media is not None
    with torch.no_grad():
        return embedded(model, ids, media)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_follows_from_kept_looks_is_what_follows_from_pixels(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    model, reader, rows, shown = shown_to(name, tiny_cache, tmp_path)
    wanted = placed(model, shown)
    for made in (len(shown), 0):
        cache = MediaCache(tmp_path / "media")
        kept = KeptLooks(cache, reader, model, Precision.fp32)
        assert kept.filled([rows], Rank(), Accelerator.cpu)[0].encoded == rows.encoded
        assert cache.counts.made == made
        reader.kept = kept.tensors
        torch.testing.assert_close(placed(model, shown), wanted, rtol=1e-5, atol=1e-5)
        for one in shown:  # and alone
            torch.testing.assert_close(placed(model, [one]), placed_by_pixels(model, reader, one), rtol=1e-5, atol=1e-5)
        reader.kept = None


def placed_by_pixels(model: Any, reader: Reader, shown: Shown) -> Tensor:
    kept, reader.kept = reader.kept, None
    try:
        return placed(model, [shown])
    finally:
        reader.kept = kept


@pytest.mark.parametrize("name", FAMILIES)
def test_their_size_is_known_before(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    model, reader, _, shown = shown_to(name, tiny_cache, tmp_path)
    for one in shown:
        assert look(model, reader.pixels(one)).shape == reader.look_shape(one)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_projector_learns_and_the_tower_is_not_asked(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    model, reader, _, shown = shown_to(name, tiny_cache, tmp_path)
    kept = KeptLooks(MediaCache(tmp_path / "media"), reader, model, Precision.fp32)
    ids = torch.cat([torch.from_numpy(one.ids) for one in shown])[None]
    gradients = []
    for tensors in (None, kept.tensors):
        reader.kept = tensors
        media = media_of(ids)
        assert media is not None and are_looks(media["inputs"]) == (tensors is not None)
        model.zero_grad()
        embedded(model, ids, media).sin().sum().backward()
        seen = [one.grad for _, one in parameters_in(model, "vision")]
        assert any(one is not None for one in seen) == (tensors is None)
        gradients.append({key: one.grad.clone() for key, one in parameters_in(model, "projector")})
    reader.kept = None
    assert gradients[0].keys() == gradients[1].keys()
    for key, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["smolvlm", "qwen25vl"])
def test_a_look_leaves_a_model_that_trains_as_it_is(name: str, tiny_cache: Path, tmp_path: Path) -> None:
    """An entry that was evicted is made again by the thread that reads ahead: its dropout must draw no number."""
    model, reader, _, shown = shown_to(name, tiny_cache, tmp_path)
    wanted = look(model, reader.pixels(shown[0]))
    projector_of(model).register_forward_pre_hook(lambda *_: pytest.fail("the projector was asked"))
    model.train()
    state = torch.get_rng_state()
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(look(model, reader.pixels(shown[0]))))
    thread.start()
    thread.join()
    assert torch.equal(found[0], wanted) and torch.equal(torch.get_rng_state(), state)
    assert model.training and projector_of(model).training


def test_other_weights_and_another_format_are_other_entries(tiny_cache: Path, tmp_path: Path) -> None:
    model, reader, _, shown = shown_to("llava", tiny_cache, tmp_path)
    cache = MediaCache(tmp_path / "media")

    def made(precision: Precision) -> int:
        before = cache.counts.made
        seen = KeptLooks(cache, reader, model, precision).tensors(shown[0])["looks"]
        assert seen.dtype == (torch.float32 if precision is Precision.fp32 else torch.bfloat16)
        return cache.counts.made - before

    assert [made(Precision.fp32), made(Precision.fp32), made(Precision.bf16), made(Precision.fp16)] == [1, 0, 1, 0]
    with torch.no_grad():
        next(one for _, one in parameters_in(model, "projector")).add_(1)
    assert made(Precision.fp32) == 0
    with torch.no_grad():
        next(one for _, one in parameters_in(model, "vision")).add_(1)
    assert made(Precision.fp32) == 1


def test_what_transformers_itself_takes_are_pixels(tiny_cache: Path, tmp_path: Path) -> None:
    model, reader, _, shown = shown_to("onevision", tiny_cache, tmp_path)
    reader.kept = KeptLooks(MediaCache(tmp_path / "media"), reader, model, Precision.fp32).tensors
    ids = torch.from_numpy(shown[0].ids)[None]
    assert CONTENTS.in_order(shown[0].ids) == [(0, shown[0])]
    assert set(reader.inputs(shown[:1])) == {"looks", "tiles", "image_sizes"}
    assert "pixel_values" in reader.plain(ids, shown[:1])
    reader.kept = None
