"""Rows with films, for models that also see pictures: loss and gradients are those of a plain loop through the model's
own forward, and a film that several questions are asked about is looked at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.config import AdapterConfig, Packing
from fieldtune.data.batches import window_with_media
from fieldtune.data.packing import pack_window
from tests.models.pictures import seeing_encoder
from tests.models.seen_films import FRAMES, TAKING_FILMS, rows_with_films
from tests.training.test_exact_loss import our_gradients
from tests.training.test_exact_vision import FULL, LORA, PROJECTOR, assert_equal, make, plain_gradients


@pytest.mark.parametrize("name", TAKING_FILMS)
@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_every_packing_equals_the_plain_loop(
    name: str, adapter: AdapterConfig, tiny_cache: Path, tmp_path: Path
) -> None:
    rows = rows_with_films(seeing_encoder(name, tiny_cache, FRAMES), tmp_path)
    wanted_loss, wanted = plain_gradients(make(name, tiny_cache, adapter), rows)
    of_projector = [gradient for key, gradient in wanted.items() if PROJECTOR.search(key)]
    assert of_projector and all(gradient.abs().max() > 0 for gradient in of_projector)
    shared = Packing.shared_prefix
    for packing, micro in [(Packing.none, 4), (Packing.rows, 4), (shared, 3), (shared, 10)]:
        found_loss, found = our_gradients(make(name, tiny_cache, adapter), rows, micro, packing)
        assert found_loss == pytest.approx(wanted_loss, rel=1e-5)
        assert_equal(found, wanted, 1e-5)


@pytest.mark.parametrize("name", TAKING_FILMS)
@pytest.mark.parametrize("micro", [1, 3, 10])
def test_a_film_of_several_questions_is_looked_at_once(name: str, micro: int, tiny_cache: Path, tmp_path: Path) -> None:
    rows = rows_with_films(seeing_encoder(name, tiny_cache, FRAMES), tmp_path)
    window = window_with_media(pack_window(rows, micro, share=True))
    passes = [one for one in (window["trunk"], *window["micro_batches"]) if one is not None]
    distinct = {int(place) for row in rows for place in row.ids[row.ids < 0]}
    assert sum(len(one["media"]["where"]) for one in passes if one["media"]) == len(distinct)
    assert window["computed"] < 0.75 * window["tokens"]
