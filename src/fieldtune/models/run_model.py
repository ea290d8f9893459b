"""A model as a run left it, or as it was before: what evaluation and serving load."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fieldtune.config import Accelerator, Config, Family
from fieldtune.data.encode import Encoder
from fieldtune.errors import UserError
from fieldtune.models.adapters import adapt
from fieldtune.models.loss import unwrapped
from fieldtune.models.quantized import DTYPES, packed
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.models.vision import load_reader
from fieldtune.models.vision_parts import parts_of, put, read_whole_parts
from fieldtune.models.weights import Source, build, resolve
from fieldtune.runs import Run

log = logging.getLogger("fieldtune")

MODEL, ADAPTER = "model", "adapter"  # what a finished train run holds: one of these folders


def start_model(config: Config) -> tuple[Any, Encoder]:
    """The model that training starts from, adapters included, and its encoder. Seeded: the same each time."""
    torch.manual_seed(config.seed)
    source = resolve(config.model, config)
    tokenizer = load_tokenizer(config.model.tokenizer, source.folder)
    model = build(config.model, source, packed(config))
    if parts_of(model) is not None:
        given = config.model.projector
        log.info("projector weights: %s", given or f"from the base checkpoint, {config.model.weights}")
    known = model.get_input_embeddings().num_embeddings
    if tokenizer.end_id >= known:
        raise UserError(
            f"the weights of {config.model.weights} know {known:,} tokens, but the tokenizer's end token is number "
            f"{tokenizer.end_id:,}; give weights that were made with this tokenizer"
        )
    reader = load_reader(source.folder, tokenizer, config.model.frames)
    return adapt(model, config.adapter), Encoder(tokenizer, config.model.template, reader)


def hold(model: Any, dtype: torch.dtype) -> None:
    """Bring a model to a number format. Towers that look at films stay in fp32, as in training: so what they see is the
    same there and here, and is kept once."""
    inner = unwrapped(model)
    towers = getattr(inner, "towers", ())
    for part in inner.children() if towers else [model]:
        if part not in towers:
            part.to(dtype)


class RunModel:
    """The tuned model of a finished run, and the base model it came from, one in memory at a time.

    With an adapter both are one model, whose adapter is switched off for the base. Without a run there is but the base.
    """

    def __init__(self, run: Run | None, config: Config) -> None:
        self._config = config
        there = [run.folder / name if run and (run.folder / name).is_dir() else None for name in (MODEL, ADAPTER)]
        self._tuned_folder, self._adapter_folder = there
        if run is not None and not any(there):
            raise UserError(f"{run.folder} holds no model any more (neither {MODEL} nor {ADAPTER}); train it again")
        self._device = torch.device("cuda" if config.hardware.accelerator is Accelerator.gpu else "cpu")
        self._model: Any = None
        self._loaded = ""
        self._whole: dict[str, Any] = {}  # the base's weights of parts that were trained whole beside the adapter
        base = None
        # A finished full training has its image processor beside it, an adapter leaves it where the base is.
        if run is None or (config.model.family is Family.vision_language and self._tuned_folder is None):
            base = resolve(config.model, config, with_weights=False).folder
        self.tokenizer = load_tokenizer(config.model.tokenizer, self._tuned_folder or self._adapter_folder or base)
        reader = load_reader(self._tuned_folder or base, self.tokenizer, config.model.frames)
        self.encoder = Encoder(self.tokenizer, config.model.template, reader)

    @contextmanager
    def system(self, name: str) -> Iterator[Any]:
        """The model called `base` or `tuned`, in evaluation mode."""
        if self._adapter_folder is not None:
            model = self._get("adapted", self._load_adapted)
            if name == "tuned":
                yield model
            else:
                with model.disable_adapter(), self._base_parts(unwrapped(model)):
                    yield model
        elif name == "tuned" and self._tuned_folder is not None:
            yield self._get("tuned", lambda: build(self._config.model, Source(self._tuned_folder)))
        else:
            yield self._get("base", self._load_base)

    @contextmanager
    def _base_parts(self, inner: Any) -> Iterator[None]:
        """While parts that were trained whole are those of the base."""
        tuned = {name: inner.get_parameter(name).detach().clone() for name in self._whole}
        put(inner, self._whole)
        try:
            yield
        finally:
            put(inner, tuned)

    def release(self) -> None:
        """Let the model in memory go; the next use loads it anew."""
        self._model, self._loaded = None, ""

    def _get(self, name: str, load: Any) -> Any:
        if self._loaded != name:
            self._model = None  # so that two models are never held at once
            model = load().to(self._device)
            if packed(self._config) is None:  # packed weights have formats of their own
                hold(model, DTYPES[self._config.hardware.precision])
            self._model = model.eval()
            self._loaded = name
        return self._model

    def _load_base(self) -> Any:
        torch.manual_seed(self._config.seed)
        return build(self._config.model, resolve(self._config.model, self._config), packed(self._config))

    def _load_adapted(self) -> Any:
        from peft import PeftModel

        assert self._adapter_folder is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
            model = PeftModel.from_pretrained(self._load_base(), str(self._adapter_folder))
        self._whole = read_whole_parts(unwrapped(model), self._adapter_folder)
        return model
