"""From `model.weights` to a folder of files, and from there to a model: one route for every source.

random          nothing: the shape of the configuration, weights from the seed
tiny:FAMILY     random weights of a small mistral, gemma, gemma2, llava, qwen2vl, ..., made once into the cache
hub:OWNER/NAME  a folder in the hub's form, downloaded and checked
folder:PATH     such a folder, or one with OpenAI's original TensorFlow checkpoint of GPT-2
openai:124M     OpenAI's checkpoint, downloaded (with the backup address) and checked
package:MODULE  a GGUF file in an installed package, converted once into the cache
run:FOLDER      the result of an earlier run; a LoRA run's adapter is merged into its base
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from filelock import FileLock

from fieldtune.config import Config, Family, ModelConfig
from fieldtune.errors import UserError
from fieldtune.loading import load
from fieldtune.models.quantized import Packed, settle
from fieldtune.models.vision_parts import PARTS, in_fp32, read_part, read_whole_parts
from fieldtune.runs import find_run

log = logging.getLogger("fieldtune")


@dataclass(frozen=True, slots=True)
class Source:
    """folder: where the files lie, None for random weights. projector: a file with the weights of a projector that are
    taken instead of the folder's. adapter: a LoRA adapter to be merged into both."""

    folder: Path | None
    adapter: Path | None = None
    projector: Path | None = None


def resolve(model: ModelConfig, config: Config, *, with_weights: bool = True) -> Source:
    """Bring the files of `model.weights` here; `UserError` in one line if they cannot be had.

    Without `with_weights` a model of the hub comes without them: enough for its shape and its tokenizer.
    """
    source = _resolved(model, config, with_weights)
    return replace(source, projector=Path(model.projector)) if model.projector else source


def _resolved(model: ModelConfig, config: Config, with_weights: bool) -> Source:
    kind, _, rest = model.weights.partition(":")
    cache = Path(config.cache_dir).expanduser()
    if kind == "random":
        return Source(None)
    if kind == "folder":
        return Source(Path(rest))
    if kind == "tiny":
        from fieldtune.models.tiny import ensure_tiny

        return Source(ensure_tiny(rest, cache))
    if kind == "hub":
        return Source(_fetched(model, rest, with_weights))
    if kind == "openai":
        from fieldtune.models.gpt2_openai import ensure_checkpoint

        return Source(ensure_checkpoint(rest, cache / "openai_gpt2"))
    if kind == "package":
        return Source(convert_packaged_gguf(rest, cache))
    return _earlier_run(rest, config)


def _fetched(model: ModelConfig, name: str, with_weights: bool) -> Path:
    from fieldtune.models.hub import fetch_snapshot

    folder = fetch_snapshot(name, revision=model.revision, with_weights=with_weights)
    if model.revision != folder.name:  # a snapshot's folder is called by its commit
        log.warning("%s may change on the hub; this is model.revision=%s", model.weights, folder.name)
    return folder


def _earlier_run(folder: str, config: Config) -> Source:
    run = find_run(Path(config.output_dir), folder)
    if (run.folder / "model").is_dir():
        return Source(run.folder / "model")
    theirs = load(run.config())
    base = resolve(theirs.model, theirs)
    if base.folder is None:
        raise UserError(
            f"model.weights=run:{run.folder} is an adapter on random weights, which no file holds; "
            "start from a run with adapter=none"
        )
    if base.adapter is not None:
        raise UserError(f"model.weights=run:{run.folder} is an adapter on another run's merged model; export it first")
    return Source(base.folder, run.folder / "adapter", base.projector)


def build(model: ModelConfig, source: Source, packed: Packed | None = None) -> Any:
    """The model in fp32, or packed into 4 bits, with its weights, before any adapter. Shapes are checked against the
    configuration."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    built = _gpt2(model, source) if model.family is Family.gpt2 else _of_folder(model, source, packed)
    if source.projector is not None:
        read_part(built, "projector", source.projector)
    if source.adapter is not None:
        from peft import PeftModel

        if packed is not None:  # merging into 4 bits would round the adapter away
            raise UserError(f"model.weights={model.weights} is an adapter, which adapter=qlora cannot start from")

        built = PeftModel.from_pretrained(built, str(source.adapter)).merge_and_unload()
        built.requires_grad_(True)  # PEFT froze the base, and merging does not undo that
        read_whole_parts(built, source.adapter)
    # SmolLM2 declares its end-of-turn token to be padding, and torch would keep that token's embedding from learning.
    # Padding never reaches our loss, so no token needs to be left out.
    built.get_input_embeddings().padding_idx = None
    positions = getattr(built.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and model.context_length > positions:
        raise UserError(
            f"model.context_length={model.context_length} is more than the {positions} positions of {model.name}; "
            f"give at most {positions}"
        )
    return built


def architecture(model: ModelConfig, source: Source) -> Any:
    """The transformers configuration of a model: from the configured shape, or config.json in its folder."""
    from transformers import GPT2Config

    if model.family is not Family.gpt2:
        assert source.folder is not None  # `check` refuses random weights for this family
        return _read_settings(source.folder)
    dropout = {"resid_pdrop": model.dropout, "embd_pdrop": model.dropout, "attn_pdrop": model.dropout}
    return GPT2Config(n_layer=model.layers, n_head=model.heads, n_embd=model.width, **dropout)


def _gpt2(model: ModelConfig, source: Source) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    from fieldtune.models.gpt2_openai import is_openai_folder, read_openai_gpt2

    shape = {"n_layer": model.layers, "n_head": model.heads, "n_embd": model.width}
    dropout = {"resid_pdrop": model.dropout, "embd_pdrop": model.dropout, "attn_pdrop": model.dropout}
    if source.folder is None:
        return GPT2LMHeadModel(architecture(model, source))
    if is_openai_folder(source.folder):
        found, state = read_openai_gpt2(source.folder)
        _same_shape(model, shape, found)
        built = GPT2LMHeadModel(GPT2Config(**found, **dropout))
        built.load_state_dict(state)
        return built
    settings = _read_settings(source.folder)
    if settings.model_type != "gpt2":
        raise UserError(f"{source.folder} holds a {settings.model_type}, not a GPT-2; give a model= of that family")
    _same_shape(model, shape, settings.to_dict())
    return _load_strictly(GPT2LMHeadModel, source.folder, **dropout)


def _same_shape(model: ModelConfig, wanted: dict[str, int | None], found: dict[str, Any]) -> None:
    different = [f"{key} {found.get(key)} (wanted {value})" for key, value in wanted.items() if found.get(key) != value]
    if different:
        raise UserError(
            f"the weights of {model.weights} have another shape than model={model.name}: {', '.join(different)}; "
            "choose the model= that fits them"
        )


def _of_folder(model: ModelConfig, source: Source, packed: Packed | None) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    from fieldtune.models.mobile_videogpt.settings import MODEL_TYPE

    assert source.folder is not None  # `check` refuses random weights for this family
    settings = _read_settings(source.folder)
    if getattr(settings, "quantization_config", None):
        raise UserError(
            f"the weights of {model.weights} are quantized already; give the model that they were made of "
            "(adapter=qlora packs it itself)"
        )
    parts = PARTS.get(settings.model_type)
    if parts is not None and model.family is not Family.vision_language:
        raise UserError(f"the model of {model.weights} sees; give model.family=vision_language")
    if parts is None and model.family is Family.vision_language:
        raise UserError(
            f"the model of {model.weights} is a {settings.model_type}, which is none of those that see here "
            f"({', '.join(PARTS)}); give model.family=causal_lm for a model of text"
        )
    if settings.model_type == MODEL_TYPE:
        return _mobile_videogpt(model, source.folder, packed)
    wanted = dict(packed.loading(parts)) if packed is not None else {}
    if getattr(settings, "attn_logit_softcapping", None):  # transformers' default attention cannot do it
        wanted["attn_implementation"] = "eager"
    built = _load_strictly(AutoModelForImageTextToText if parts else AutoModelForCausalLM, source.folder, **wanted)
    if packed is not None:
        settle(built)
        if parts is not None:
            in_fp32(built)
    return built


def _mobile_videogpt(model: ModelConfig, folder: Path, packed: Packed | None) -> Any:
    from fieldtune.models.mobile_videogpt.checkpoint import read_checkpoint

    if packed is not None:
        raise UserError(f"adapter=qlora with model={model.name} is not done here; give adapter=lora")
    return read_checkpoint(folder, lambda: _image_tower(model))


def _image_tower(model: ModelConfig) -> Path:
    """The folder of the CLIP that `model.image_tower` names."""
    kind, _, rest = (model.image_tower or "").partition(":")
    if not kind:
        raise UserError(
            f"the weights of {model.weights} have no image tower; give the CLIP that they were trained with, as in "
            "model.image_tower=hub:openai/clip-vit-base-patch16"
        )
    from fieldtune.models.hub import fetch_snapshot

    return Path(rest) if kind == "folder" else fetch_snapshot(rest, revision=None)


def _read_settings(folder: Path) -> Any:
    from transformers import AutoConfig

    from fieldtune.models.mobile_videogpt import settings as _  # noqa: F401 - AutoConfig knows the model type by it

    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder} holds no model in the hub's form (config.json) nor OpenAI's GPT-2 checkpoint ({reason})"
        ) from None


def _load_strictly(architecture: Any, folder: Path, **settings: Any) -> Any:
    """Load every weight by name; a missing or unexpected one is an error, not a warning."""
    import torch
    from safetensors import SafetensorError

    try:
        model, report = architecture.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            **{"dtype": torch.float32, **settings},
        )
    except UnpicklingError:  # its own message advises to load the file unsafely
        raise UserError(
            f"the weights in {folder} cannot be loaded (their pickle is damaged or holds more than tensors); "
            "give safetensors"
        ) from None
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the weights in {folder} cannot be loaded ({reason})") from None
    wrong = {name: sorted(report[name]) for name in ("missing_keys", "unexpected_keys") if report.get(name)}
    if report.get("mismatched_keys"):
        wrong["mismatched_keys"] = sorted(str(item) for item in report["mismatched_keys"])
    if wrong:
        listed = "; ".join(f"{name.replace('_', ' ')}: {', '.join(keys[:5])}" for name, keys in wrong.items())
        raise UserError(f"the weights in {folder} do not fit the architecture ({listed})")
    return model


def convert_packaged_gguf(module: str, cache: Path) -> Path:
    """A folder in the hub's form of the GGUF file in a Python package; converted once, under the file's hash."""
    spec = importlib.util.find_spec(module)
    roots = list(spec.submodule_search_locations or []) if spec else []
    files = [path for root in roots for path in Path(root).rglob("*.gguf")]
    if len(files) != 1:
        raise UserError(f"the package {module} holds {len(files)} .gguf files; one is needed")
    with files[0].open("rb") as file:
        start = file.read(1 << 20)
    key = sha256(start + str(files[0].stat().st_size).encode()).hexdigest()[:12]
    target = cache / "converted" / f"{module}-{key}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):  # processes that want the same conversion wait for the first one's
        if not (target / "config.json").exists():
            _convert(files[0], target)
    return target


def _convert(gguf: Path, target: Path) -> None:
    import shutil
    import tempfile

    from transformers import AutoModelForCausalLM, AutoTokenizer

    if importlib.util.find_spec("gguf") is None:
        raise UserError("reading the packaged model needs the package gguf; pip install 'fieldtune[demo]'")
    log.info("converting %s once into %s", gguf.name, target)
    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    settings = loaded.config
    if hasattr(settings, "quantization_config"):
        del settings.quantization_config
    # A model that was loaded dequantised refuses to be saved; a fresh one with its weights does not.
    plain = type(loaded)(settings)
    plain.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        plain.save_pretrained(str(beside))
        tokenizer.save_pretrained(str(beside))
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
