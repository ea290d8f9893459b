"""A run opened for export: its model in full precision, and the held-out rows that forms of it are compared on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldtune import datasets
from fieldtune.config import AdapterKind, Config, Family
from fieldtune.data.load import Rows, load_split
from fieldtune.errors import UserError
from fieldtune.export.options import Options
from fieldtune.loading import load
from fieldtune.models.exported import Said, say, unpacked
from fieldtune.models.run_model import ADAPTER, MODEL, RunModel
from fieldtune.models.weights import Source, architecture, resolve
from fieldtune.records import file_sha256
from fieldtune.runs import Run

log = logging.getLogger("fieldtune")


@dataclass(frozen=True, slots=True)
class Work:
    """trained: the run's own configuration. config: the same with a base that is not packed. source: the base.

    folder: where the export grows. split, rows: what forms are compared on.
    """

    run: Run
    options: Options
    trained: Config
    config: Config
    source: Source
    models: RunModel
    split: str
    rows: Rows
    folder: Path

    @property
    def has_adapter(self) -> bool:
        return self.trained.adapter.kind is not AdapterKind.none

    def settings(self) -> Any:
        """The model's configuration in transformers."""
        return architecture(self.config.model, self.source if self.has_adapter else Source(self.run.folder / MODEL))

    @property
    def model_type(self) -> str:
        """transformers' name of the architecture."""
        return str(self.settings().model_type)

    @property
    def cache(self) -> Path:
        return Path(self.config.cache_dir).expanduser()

    @property
    def adapter(self) -> Path:
        return self.run.folder / ADAPTER

    def said(self, model: Any) -> Said:
        """What a model of transformers says to the rows."""
        tokenizer, encoder = self.models.tokenizer, self.models.encoder
        prompts = [encoder.prompt(example.prompt) for example in self.rows.examples]
        return say(model, tokenizer, self.rows.encoded, prompts, self.options.tokens)

    def base_facts(self) -> dict[str, Any]:
        """Where the base came from, and the sums of its weights."""
        model = self.config.model
        weights = sorted(self.source.folder.glob("*.safetensors")) if self.source.folder is not None else []
        return {
            "weights": model.weights,
            "revision": model.revision,
            "sha256": {path.name: file_sha256(path) for path in weights},
        }


def open_work(run: Run, options: Options, folder: Path) -> Work:
    """Open a finished run; `UserError` if its base or its data set is gone."""
    trained = load(run.config())
    if trained.model.family is Family.vision_language:
        raise UserError(
            f"{run.folder} is of a model that sees, which is not exported yet; PEFT reads its adapter folder"
        )
    config = unpacked(trained)
    models = RunModel(run, config)
    dataset = datasets.of_run(config, run)
    dataset.verify()
    split = next((name for name in ("test", "val", "train") if dataset.rows[name]), "train")
    rows = load_split(dataset, split, models.encoder, config.model.context_length, rows=options.prompts)
    if not rows.encoded:
        raise UserError(f"the {split} split of {run.folder}'s data set is empty; there is nothing to compare on")
    if split == "train":
        log.warning("the data set has no held-out rows; forms are compared on training rows")
    # A fully tuned model needs its base for nothing; one that is gone must not be in the way.
    source = resolve(config.model, config) if config.adapter.kind is not AdapterKind.none else Source(None)
    return Work(run, options, trained, config, source, models, split, rows, folder)
