"""A tuned model in full precision, as an export needs it: never on 4-bit weights; written, read back and asked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fieldtune.config import Accelerator, AdapterKind, Config, HardwareConfig, Precision
from fieldtune.data.encode import Encoded
from fieldtune.errors import UserError
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.gpt2_openai import from_gptmodel_state_dict, to_gptmodel_state_dict
from fieldtune.models.quantized import DTYPES
from fieldtune.models.tokenizer import Tokenizer

CPU = HardwareConfig(accelerator=Accelerator.cpu)  # where exports are made and compared, in fp32
TOGETHER = 8  # prompts answered at a time
SENTENCEPIECE = "tokenizer.model"  # the original of some tokenizers; llama.cpp's converter reads it


@dataclass(frozen=True, slots=True)
class Said:
    """What a model says to some rows.

    logits: a row's [places, vocabulary], fp32, before each of the first tokens of its answer. answers: greedy ones.
    """

    logits: list[npt.NDArray[np.float32]]
    answers: list[str]


def unpacked(config: Config) -> Config:
    """The configuration with a base that is not packed: adapters are exported on, and merged into, whole weights."""
    kind = AdapterKind.lora if config.adapter.kind is AdapterKind.qlora else config.adapter.kind
    return replace(config, adapter=replace(config.adapter, kind=kind), hardware=CPU)


def answer_places(row: Encoded, most: int) -> npt.NDArray[np.int64]:
    """Positions that predict the first trained tokens of a row, `most` of them."""
    return np.flatnonzero(row.trained[1:])[:most]


def say(model: Any, tokenizer: Tokenizer, rows: Sequence[Encoded], prompts: Sequence[Sequence[int]], most: int) -> Said:
    """Logits at the first `most` trained tokens of each row, and greedy answers of as many tokens to its prompt."""
    model.eval()
    logits = [_logits(model, row, most) for row in rows]
    answers = [
        answer.text
        for first in range(0, len(prompts), TOGETHER)
        for answer in generate(model, tokenizer, prompts[first : first + TOGETHER], Sampling(most))
    ]
    return Said(logits, answers)


@torch.inference_mode()
def _logits(model: Any, row: Encoded, most: int) -> npt.NDArray[np.float32]:
    places = answer_places(row, most)
    ids = torch.from_numpy(row.ids[: places[-1] + 1].astype(np.int64))[None]
    found: npt.NDArray[np.float32] = model(input_ids=ids).logits[0, torch.from_numpy(places)].float().numpy()
    return found


def save_whole(model: Any, tokenizer: Tokenizer, folder: Path, precision: Precision, base: Path | None) -> None:
    """Write a model without adapters in the hub's form: safetensors, configuration, tokenizer.

    base: where the weights came from; the original of a tokenizer that lies there is kept.
    """
    settings = model.generation_config
    settings.eos_token_id, settings.pad_token_id = sorted(tokenizer.stop_ids), tokenizer.pad_id
    settings.do_sample, settings.temperature, settings.top_k, settings.top_p = False, None, None, None
    model.to(DTYPES[precision]).save_pretrained(str(folder))
    tokenizer.save(folder)
    if base is not None and (base / SENTENCEPIECE).is_file():
        shutil.copyfile(base / SENTENCEPIECE, folder / SENTENCEPIECE)


def load_plain(folder: Path) -> Any:
    """A published model as anyone loads it, in fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)


def load_adapter(base: Any, folder: Path) -> Any:
    """A published adapter as anyone loads it, on its base."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder))


def save_state_dict(model: Any, path: Path) -> None:
    """The weights as a file that `torch.load(path, weights_only=True)` reads; of a GPT-2 as the document's GPTModel."""
    settings = model.config
    if settings.model_type == "gpt2":
        state = to_gptmodel_state_dict(model.state_dict(), settings.n_layer, context_length=settings.n_positions)
    else:
        state = model.state_dict()
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    beside.replace(path)


def check_state_dict(model: Any, path: Path) -> int:
    """Read such a file back; returns the numbers in it. `UserError` if it is not the model."""
    state = torch.load(path, weights_only=True)
    if model.config.model_type == "gpt2":
        state = from_gptmodel_state_dict(state, model.config.n_layer)
    theirs = model.state_dict()
    wrong = sorted(name for name in theirs if name not in state or not torch.equal(state[name], theirs[name]))
    if wrong or state.keys() - theirs.keys():
        raise UserError(f"{path.name} does not hold the model's weights ({', '.join(wrong[:5])}); nothing is published")
    return sum(tensor.numel() for tensor in theirs.values())
