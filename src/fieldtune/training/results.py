"""What a finished training run leaves: the model or adapter in the hub's form, the plain state dict, the curves."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from fieldtune.charts import loss_plot_pdf
from fieldtune.config import AdapterKind, Config, Family
from fieldtune.data.encode import Encoder
from fieldtune.errors import UserError
from fieldtune.models.exported import save_state_dict
from fieldtune.models.loss import unwrapped
from fieldtune.models.run_model import ADAPTER, MODEL
from fieldtune.models.vision_parts import save_whole_parts
from fieldtune.records import read_jsonl
from fieldtune.training.watch import METRICS

log = logging.getLogger("fieldtune")


def save_results(config: Config, run_dir: Path, model: Any, encoder: Encoder, result_name: str) -> dict[str, str]:
    """Write the results; returns each file or folder's name in the run and what it is."""
    tokenizer = encoder.tokenizer
    if config.adapter.kind is AdapterKind.none:
        files = {MODEL: "the tuned model and its tokenizer, in the hub's form (safetensors)"}
        model.save_pretrained(str(run_dir / MODEL))
        tokenizer.save(run_dir / MODEL)
        if encoder.reader is not None:
            encoder.reader.save(run_dir / MODEL)
        if config.model.family is Family.gpt2:
            name = f"gpt2-{config.model.size}-{result_name}.pth"
            save_state_dict(model, run_dir / name)
            files[name] = "the tuned model as a plain state dict with the keys of the document's GPTModel"
    else:
        files = {ADAPTER: "the tuned adapter and the tokenizer; the base stays where it came from"}
        _must_have_moved(model)
        model.save_pretrained(str(run_dir / ADAPTER))
        for name in save_whole_parts(unwrapped(model), run_dir / ADAPTER):
            log.info("%s: a part that was trained whole", run_dir / ADAPTER / name)
        _name_the_base(run_dir / ADAPTER / "adapter_config.json", config.model.weights)
        tokenizer.save(run_dir / ADAPTER)
    plot = f"loss_plot_{config.model.size}.pdf"
    loss_plot_pdf(read_curves(run_dir), run_dir / plot, f"{config.name}, {config.model.name}")
    files[plot] = "training and validation loss by optimizer step"
    return files


def read_curves(run_dir: Path) -> dict[str, list[tuple[float, float]]]:
    """(optimizer step, value) of the losses in metrics.jsonl."""
    curves: dict[str, list[tuple[float, float]]] = {"train/loss": [], "val/loss": []}
    for line in read_jsonl(run_dir / METRICS):
        for name, points in curves.items():
            if name in line:
                points.append((line["step"], line[name]))
    return curves


def _must_have_moved(model: Any) -> None:
    """An adapter whose second matrices are all zero changes nothing: a save of it would look like a result."""
    if not any(parameter.abs().max() > 0 for name, parameter in model.named_parameters() if "lora_B" in name):
        raise UserError(
            "no validation loss of this run is below that of the untrained adapter, so there is nothing to save; "
            "give a lower trainer.learning_rate or more trainer.max_epochs"
        )


def _name_the_base(path: Path, weights: str) -> None:
    """PEFT writes the folder that the base was read from, a cache on this machine; its source says more."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = weights.removeprefix("hub:")
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
