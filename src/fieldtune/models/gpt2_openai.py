"""OpenAI's GPT-2 release: download its TensorFlow checkpoints and turn them into PyTorch state dicts.

Two layouts are written: that of transformers' ``GPT2LMHeadModel`` and that of the ``GPTModel`` of the book
"Build a Large Language Model (From Scratch)". They hold the same numbers: transformers' ``Conv1D`` keeps
weights as [inputs, outputs] with query, key and value joined, ``GPTModel``'s ``nn.Linear`` as [outputs,
inputs] and apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fieldtune.errors import UserError
from fieldtune.models.fetch import fetch
from fieldtune.models.tf_bundle import iter_bundle

SIZES = ("124M", "355M", "774M", "1558M")
PRIMARY = "https://openaipublic.blob.core.windows.net/gpt-2/models/{size}/"
BACKUP = "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2/{size}/"

# The same two files serve all sizes; for the others only the tensors' own checksums are known.
_FILES: dict[str, str | None] = {
    "checkpoint": None,
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "hparams.json": None,
    "model.ckpt.data-00000-of-00001": None,
    "model.ckpt.index": None,
    "model.ckpt.meta": None,
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
_HPARAMS = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}


def ensure_checkpoint(
    size: str,
    folder: Path,
    base_urls: Sequence[str] = (PRIMARY, BACKUP),
    *,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Path:
    """Download OpenAI's checkpoint of ``size`` into ``folder/size`` unless it lies there intact; that folder.

    ``base_urls`` are tried in order, ``{size}`` in them is filled in. ``progress(file, done, total)`` counts
    bytes. Raises UserError: an unknown size; a file that no URL gives.
    """
    if size not in SIZES:
        raise UserError(f"unknown GPT-2 size {size!r}: choose one of {', '.join(SIZES)}")
    for name, sha256 in _FILES.items():
        urls = [base.format(size=size).rstrip("/") + "/" + name for base in base_urls]
        fetch(urls, folder / size / name, sha256=sha256, progress=_named(progress, name))
    return folder / size


def _named(
    progress: Callable[[str, int, int | None], None] | None, name: str
) -> Callable[[int, int | None], None] | None:
    return (lambda done, total: progress(name, done, total)) if progress else None


def is_openai_folder(folder: Path) -> bool:
    """True when ``folder`` holds a GPT-2 checkpoint as OpenAI published it."""
    return (folder / "hparams.json").is_file() and (folder / "model.ckpt.index").is_file()


def _read_hparams(path: Path) -> dict[str, int]:
    try:
        hparams = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); delete it and fetch it again") from error
    wrong = [
        name
        for name in _HPARAMS
        if not isinstance(hparams, dict) or type(hparams.get(name)) is not int or hparams[name] < 1
    ]
    if wrong:
        raise UserError(f"{path} has no positive whole number for {', '.join(wrong)}; delete it, fetch it again")
    return {ours: hparams[theirs] for theirs, ours in _HPARAMS.items()}


def _expected(config: Mapping[str, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For every TensorFlow variable: transformers' name of it and its shape there."""
    width = config["n_embd"]
    names = {
        "model/wte": ("wte.weight", (config["vocab_size"], width)),
        "model/wpe": ("wpe.weight", (config["n_positions"], width)),
        "model/ln_f/g": ("ln_f.weight", (width,)),
        "model/ln_f/b": ("ln_f.bias", (width,)),
    }
    layers = {"attn/c_attn": (width, 3 * width), "attn/c_proj": (width, width)}
    layers |= {"mlp/c_fc": (width, 4 * width), "mlp/c_proj": (4 * width, width)}
    for i in range(config["n_layer"]):
        for norm in ("ln_1", "ln_2"):
            names[f"model/h{i}/{norm}/g"] = (f"h.{i}.{norm}.weight", (width,))
            names[f"model/h{i}/{norm}/b"] = (f"h.{i}.{norm}.bias", (width,))
        for layer, shape in layers.items():
            key = f"h.{i}.{layer.replace('/', '.')}"
            names[f"model/h{i}/{layer}/w"] = (f"{key}.weight", shape)
            names[f"model/h{i}/{layer}/b"] = (f"{key}.bias", shape[1:])
    return {variable: ("transformer." + key, shape) for variable, (key, shape) in names.items()}


def read_openai_gpt2(folder: Path) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Read a GPT-2 checkpoint of OpenAI's.

    Returns the keyword arguments for ``transformers.GPT2Config`` and the state dict of its
    ``GPT2LMHeadModel`` (float32; ``lm_head.weight`` is the same tensor as ``transformer.wte.weight``).

    Raises UserError: missing, cut or damaged files (names the tensor); missing or unexpected variables;
    shapes that do not fit ``hparams.json``.
    """
    config = _read_hparams(folder / "hparams.json")
    expected = _expected(config)
    state: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for variable, array in iter_bundle(folder / "model.ckpt"):
        if variable not in expected:
            unexpected.append(variable)
            continue
        key, shape = expected.pop(variable)
        # OpenAI's layers are convolutions of width 1: [1, inputs, outputs].
        stored = array.shape[1:] if array.ndim == 3 and array.shape[0] == 1 else array.shape
        if stored != shape:
            raise UserError(
                f"{folder}: the variable {variable} has the shape {list(array.shape)}, hparams.json asks for"
                f" {list(shape)}; are the files of one model size? Delete the folder and fetch it again"
            )
        state[key] = torch.from_numpy(array.astype("float32").reshape(shape))
    _refuse_differences(f"the checkpoint in {folder}", list(expected), unexpected)
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return config, state


def _refuse_differences(what: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    parts = [
        f"{kind} {', '.join(sorted(names)[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for kind, names in (("misses", missing), ("has the unexpected", unexpected))
        if names
    ]
    if parts:
        raise UserError(f"{what} {' and '.join(parts)}: no GPT-2 of that size; check its origin")


# (transformers' name, GPTModel's name, whether the weight is transposed) within one block.
_BLOCK_LAYERS = (
    ("ln_1.weight", "norm1.scale", False),
    ("ln_1.bias", "norm1.shift", False),
    ("ln_2.weight", "norm2.scale", False),
    ("ln_2.bias", "norm2.shift", False),
    ("attn.c_proj.weight", "att.out_proj.weight", True),
    ("attn.c_proj.bias", "att.out_proj.bias", False),
    ("mlp.c_fc.weight", "ff.layers.0.weight", True),
    ("mlp.c_fc.bias", "ff.layers.0.bias", False),
    ("mlp.c_proj.weight", "ff.layers.2.weight", True),
    ("mlp.c_proj.bias", "ff.layers.2.bias", False),
)
_QKV = ("W_query", "W_key", "W_value")


def _pairs(n_layer: int) -> Iterable[tuple[str, str, bool]]:
    """(transformers' name, GPTModel's name, transposed) of all that maps one to one."""
    yield "transformer.wte.weight", "tok_emb.weight", False
    yield "transformer.wpe.weight", "pos_emb.weight", False
    yield "transformer.ln_f.weight", "final_norm.scale", False
    yield "transformer.ln_f.bias", "final_norm.shift", False
    for i in range(n_layer):
        for theirs, ours, transposed in _BLOCK_LAYERS:
            yield f"transformer.h.{i}.{theirs}", f"trf_blocks.{i}.{ours}", transposed


def _own(tensor: Tensor, *, transposed: bool = False) -> Tensor:
    """A copy with memory of its own, so that the results can be saved and changed independently."""
    return (tensor.t() if transposed else tensor).detach().clone(memory_format=torch.contiguous_format)


def to_gptmodel_state_dict(state: Mapping[str, Tensor], n_layer: int, *, context_length: int) -> dict[str, Tensor]:
    """Convert a state dict of transformers' ``GPT2LMHeadModel`` to the layout of ``GPTModel`` (with qkv
    biases).

    ``out_head.weight`` is a copy of ``lm_head.weight``, of ``wte`` where there is none. Every block gets its
    causal mask, [context_length, context_length], so that a strict ``load_state_dict`` accepts the result. A
    ``context_length`` below the model's keeps its first positions.

    Raises UserError: missing or unexpected tensors; a ``context_length`` that the model does not have.
    """
    left = {name: tensor for name, tensor in state.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    needed = [theirs for theirs, _, _ in _pairs(n_layer)]
    needed += [f"transformer.h.{i}.attn.c_attn.{kind}" for i in range(n_layer) for kind in ("weight", "bias")]
    _refuse_differences(
        f"the state dict for {n_layer} layers",
        [name for name in needed if name not in left],
        [name for name in left if name not in {*needed, "lm_head.weight"}],
    )
    positions = len(left["transformer.wpe.weight"])
    if not 1 <= context_length <= positions:
        raise UserError(f"context_length={context_length}: give 1 to {positions}, the model's positions")
    out = {ours: _own(left[theirs], transposed=transposed) for theirs, ours, transposed in _pairs(n_layer)}
    out["pos_emb.weight"] = _own(out["pos_emb.weight"][:context_length])
    for i in range(n_layer):
        weight, bias = (left[f"transformer.h.{i}.attn.c_attn.{kind}"] for kind in ("weight", "bias"))
        for name, w, b in zip(_QKV, weight.chunk(3, dim=1), bias.chunk(3), strict=True):
            out[f"trf_blocks.{i}.att.{name}.weight"] = _own(w, transposed=True)
            out[f"trf_blocks.{i}.att.{name}.bias"] = _own(b)
        out[f"trf_blocks.{i}.att.mask"] = torch.triu(torch.ones(context_length, context_length), diagonal=1)
    out["out_head.weight"] = _own(left.get("lm_head.weight", left["transformer.wte.weight"]))
    return out


def _weight_of(bias: str) -> str:
    return bias.removesuffix("bias") + "weight"


def _zero_bias(state: Mapping[str, Tensor], bias: str) -> Tensor:
    weight = state[_weight_of(bias)]
    return weight.new_zeros(len(weight))


def from_gptmodel_state_dict(state: Mapping[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Convert a ``GPTModel``'s state dict to the layout of transformers' ``GPT2LMHeadModel``.

    Masks are dropped. Without qkv biases (``qkv_bias=False``) zeros stand in for them. ``lm_head.weight`` is
    the same tensor as ``wte`` where the two are equal; where they are not, the model needs
    ``tie_word_embeddings=False``.

    Raises UserError: missing or unexpected tensors.
    """
    left = {name: tensor for name, tensor in state.items() if not name.endswith(".att.mask")}
    needed = [ours for _, ours, _ in _pairs(n_layer)] + ["out_head.weight"]
    needed += [f"trf_blocks.{i}.att.{name}.weight" for i in range(n_layer) for name in _QKV]
    biases = [f"trf_blocks.{i}.att.{name}.bias" for i in range(n_layer) for name in _QKV]
    if not any(name in left for name in biases):
        left |= {name: _zero_bias(left, name) for name in biases if _weight_of(name) in left}
    _refuse_differences(
        f"the GPTModel state dict for {n_layer} layers",
        [name for name in needed + biases if name not in left],
        [name for name in left if name not in {*needed, *biases}],
    )
    out = {theirs: _own(left[ours], transposed=transposed) for theirs, ours, transposed in _pairs(n_layer)}
    for i in range(n_layer):
        for kind in ("weight", "bias"):
            joined = torch.cat([left[f"trf_blocks.{i}.att.{name}.{kind}"] for name in _QKV])
            out[f"transformer.h.{i}.attn.c_attn.{kind}"] = _own(joined, transposed=kind == "weight")
    wte, head = out["transformer.wte.weight"], left["out_head.weight"]
    out["lm_head.weight"] = wte if torch.equal(wte, head) else _own(head)
    return out
