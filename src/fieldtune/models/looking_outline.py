"""What frozen towers hold while they look at pictures and films before the first step (`models.kept_media`)."""

from __future__ import annotations

from typing import Any

import torch

from fieldtune.config import AdapterConfig, AdapterKind
from fieldtune.data.media import Shown
from fieldtune.models.film_outline import MODEL_TYPE
from fieldtune.models.ledger import counting
from fieldtune.models.looks import look
from fieldtune.models.outline import on_fakes, traceable
from fieldtune.models.real_inputs import RealStaysReal


def held_looking(settings: Any, shown: Shown) -> int:
    """Bytes held at most for one picture or film, its pixels among them. A film of Mobile-VideoGPT is not decoded for
    that: each is as large as the others. `UserError` if a picture cannot be read."""
    mode, network = on_fakes(settings, AdapterConfig(kind=AdapterKind.none), 1, torch.float32, False)
    model: Any = network.model
    if settings.model_type == MODEL_TYPE:
        shape = model.shape
        with mode, torch.no_grad(), counting(network.parameters()) as ledger:
            model.look(*torch.empty(2, shape.frames, 3, shape.image_size, shape.image_size))
        return max(peak.total for peak in ledger.peaks().values())
    pixels = shown.reader.must_see(shown)
    known = [*network.parameters(), *pixels.values()]
    really = RealStaysReal()  # type: ignore[no-untyped-call]
    with traceable(settings), mode, counting(known) as ledger, really:
        look(model, pixels)
    return sum(one.nbytes for one in pixels.values()) + max(peak.total for peak in ledger.peaks().values())
