"""Rows with media, counted in a model's tokens once prepared: what is too long is named before training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fieldtune.config import Config, Family
from fieldtune.errors import UserError
from fieldtune.records import SPLITS, read_examples

log = logging.getLogger("fieldtune")


def count_tokens(config: Config, folder: Path) -> dict[str, Any] | None:
    """Encode a data set's rows as a training of the configured model does, and name those that it will leave out.

    Returns model, context_length (tokens), and of each split the rows, their tokens and how many are left out. None for
    a model that does not see, and where its tokenizer cannot be had now, which the log says. Weights are not fetched.
    """
    if config.model.family is not Family.vision_language:
        return None
    from fieldtune.data.load import account, account_line, encode_examples, name_left_out
    from fieldtune.data.show import load_encoder

    try:
        encoder = load_encoder(config)
    except UserError as error:
        log.warning("tokens are not counted: %s; `fieldtune rows` counts them before a training", error)
        return None
    limit, counts = config.model.context_length, {}
    for split in SPLITS:
        rows = encode_examples(
            read_examples(folder / f"{split}.jsonl"), encoder, limit, train_on_prompt=config.data.train_on_prompt
        )
        name_left_out(split, rows)
        counts[split] = account(rows)
        log.info("%s for %s", account_line(split, counts[split]), config.model.name)
    return {"model": config.model.name, "context_length": limit, **counts}
