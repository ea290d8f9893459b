"""A folder in the hub's form to a GGUF file: llama.cpp's converter, and its quantizer for what that cannot write."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from fieldtune.errors import UserError
from fieldtune.export.converter import PACKAGE, VERSION, ensure_converter
from fieldtune.runs import write_json

BY_CONVERTER = ("f32", "f16", "bf16", "q8_0")  # what the converter writes itself; others are made of its f16
_ADVICE = {
    "pre-tokenizer was not recognized": "llama.cpp does not know how this tokenizer cuts words; it knows released ones",
    "tokenizer.model": "llama.cpp wants this family's sentencepiece file tokenizer.model, which the base does not have",
    "is not supported": "llama.cpp does not know this architecture",
}


def has_llama() -> bool:
    """Whether llama.cpp's library is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def need_packages(quantization: str, *, asked: bool) -> None:
    """`UserError` if what the conversion needs is not installed. asked: whether the file will be asked to answer."""
    for module in ("gguf", "sentencepiece"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"GGUF needs the package {module}; pip install 'fieldtune[gguf]'")
    if has_llama():
        return
    build = f"pip install 'fieldtune[gguf]' builds {PACKAGE} {VERSION} (minutes; make install-gguf is the quick way)"
    if quantization not in BY_CONVERTER:
        raise UserError(f"quantization={quantization} is made by llama.cpp's library: {build}; or give q8_0")
    if asked:
        raise UserError(
            f"the GGUF's answers are compared with the model's by llama.cpp's library: {build}; or give skip=answers, "
            "and the export says that it was not done"
        )


def convert(folder: Path, target: Path, quantization: str, cache: Path, *, begins: bool) -> None:
    """Write the GGUF `target` of a model's `folder`, which is patched where the converter wants more than it has.

    begins: whether a prompt begins with the tokenizer's begin token, which llama.cpp then puts there.
    """
    script = ensure_converter(cache)
    _patch(folder, begins)
    kind = quantization if quantization in BY_CONVERTER else "f16"
    made = target if kind == quantization else target.with_suffix(".f16")
    command = [sys.executable, str(script), "--outtype", kind, "--outfile", str(made), str(folder)]
    surroundings = {key: value for key, value in os.environ.items() if key != "NO_LOCAL_GGUF"}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    if done.returncode or not made.exists():
        said = (done.stderr.strip() or "no reason given").splitlines()[-1]
        advice = next((text for part, text in _ADVICE.items() if part in done.stderr), said)
        raise UserError(f"llama.cpp's converter refuses the model ({advice}); to=merged gives it for other programs")
    _set_begin(made, begins)
    if made != target:
        _quantize(made, target, quantization)
        made.unlink()


def _patch(folder: Path, begins: bool) -> None:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if settings.get("model_type") == "gpt2":  # transformers has stopped writing it
        write_json(folder / "config.json", {**settings, "n_ctx": settings["n_positions"]})
    path = folder / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**tokenizer, "add_bos_token": begins})


def _set_begin(path: Path, begins: bool) -> None:
    """A tokenizer's own post-processor outweighs its settings in the converter; the run's template outweighs both."""
    from gguf import GGUFReader

    reader = GGUFReader(str(path), "r+")
    field = reader.get_field("tokenizer.ggml.add_bos_token")
    if field is not None and bool(field.parts[field.data[0]][0]) != begins:
        field.parts[field.data[0]][0] = begins


def _quantize(source: Path, target: Path, quantization: str) -> None:
    import llama_cpp

    kinds = llama_cpp.llama_cpp
    settings = kinds.llama_model_quantize_default_params()
    settings.ftype = getattr(kinds, f"LLAMA_FTYPE_MOSTLY_{quantization.upper()}")
    status = kinds.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(settings))
    if status or not target.exists():
        raise UserError(f"llama.cpp cannot make quantization={quantization} of this model; give q8_0")
