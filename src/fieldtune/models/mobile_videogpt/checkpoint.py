"""The layout of the released checkpoints: config.json and weights, read strictly by name, and written.

    model.vision_tower.vision_encoder.*                      VideoMamba, with the weights of both directions
    model.image_vision_tower.vision_tower.vision_model.*     CLIP's image tower; may be missing
    model.mm_projector.*  model.image_mm_projector.*         the projectors
    model.embed_tokens, model.layers.*, model.norm, lm_head  Qwen2.5

The released training code builds CLIP's tower only after loading and takes it from openai/clip-vit-base-patch16, so a
checkpoint may come without it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from fieldtune.errors import UserError
from fieldtune.models.mobile_videogpt.network import MobileVideoGPT, image_settings, language_settings
from fieldtune.models.mobile_videogpt.settings import MODEL_TYPE, OURS
from fieldtune.models.mobile_videogpt.shapes import Shape

log = logging.getLogger("fieldtune")

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
IMAGE_TOWER = "model.image_vision_tower.vision_tower.vision_model."
PREFIXES = {
    "image_tower.": IMAGE_TOWER,
    "video_tower.": "model.vision_tower.vision_encoder.",
    "image_projector.": "model.image_mm_projector.",
    "video_projector.": "model.mm_projector.",
    "language_model.": "",
}

# What config.json says of the language model. rope_scaling is left out: the released code sets it to null.
NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
LANGUAGE_FIELDS = (
    *NEEDED, "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "tie_word_embeddings", "use_sliding_window", "sliding_window", "max_window_layers", "attention_dropout",
    "bos_token_id", "eos_token_id", "pad_token_id", "rope_theta",
)  # fmt: skip

BACKWARD = re.compile(r"\.mixer\.(A_b_log|D_b|\w+_b\.(weight|bias))$")
# Of a whole CLIP, what is not its image tower; and a table of numbers 0, 1, 2 ... that older files hold.
OTHER_PARTS = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
POSITION_IDS = "embeddings.position_ids"
SHOWN = 5  # keys of each kind that an error names


def released_state(model: MobileVideoGPT) -> dict[str, Tensor]:
    """The model's own tensors under the names of the released layout; a tied head is left out."""
    named = {}
    for name, tensor in model.state_dict().items():
        part = next(part for part in PREFIXES if name.startswith(part))
        # Some versions of transformers hold CLIP's image tower in a module of this name, others do not.
        named[PREFIXES[part] + name.removeprefix(part).removeprefix("vision_model.")] = tensor
    if model.config.tie_word_embeddings:
        del named[HEAD]
    return named


def read_checkpoint(
    folder: Path, clip_folder: Path | Callable[[], Path] | None = None, *, dtype: torch.dtype = torch.float32
) -> MobileVideoGPT:
    """The model in a folder of the released layout (safetensors or .bin, in one file or several with an index).

    clip_folder: a CLIP in the hub's form whose image tower is taken if the checkpoint has none, or a function that
    brings it. `UserError` in one line if a key is missing, unexpected or of another shape, or if files cannot be read.
    """
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = MobileVideoGPT(read_shape(folder)).to(dtype)
    model.language_model.tie_weights()  # a part of what was left out
    wanted = released_state(model)
    tower = {name for name in wanted if name.startswith(IMAGE_TOWER)}
    poured = _Pouring(folder, wanted)
    poured.pour(folder)
    without_tower = tower <= poured.missing
    if without_tower:
        poured.missing -= tower
    poured.check()
    if without_tower:
        _pour_clip(folder, clip_folder() if callable(clip_folder) else clip_folder, wanted, model.shape)
    elif isinstance(clip_folder, Path):
        log.info("the image tower is the checkpoint's own; that of %s is not used", clip_folder)
    return model


def read_shape(folder: Path) -> Shape:
    """The sizes that a folder's config.json tells; the towers are the released ones unless it says otherwise."""
    path, settings = folder / "config.json", _settings(folder)
    if settings.get("model_type") != MODEL_TYPE:
        raise UserError(f"{path} is of a {settings.get('model_type')}; a Mobile-VideoGPT's model_type is {MODEL_TYPE}")
    for key in ("mm_projector_type", "image_mm_projector_type"):
        if not str(settings.get(key, "etp")).startswith("etp"):
            raise UserError(f"{path} has {key}={settings[key]}; only etp is supported")
    absent = [key for key in NEEDED if key not in settings]
    if absent:
        raise UserError(f"{path} does not say {', '.join(absent)}; give the configuration that belongs to the weights")
    try:
        shape = shape_of(settings)
        language_settings(shape)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"{path} holds a size that cannot be ({' '.join(str(error).split())})") from None
    return shape


def shape_of(settings: Mapping[str, Any]) -> Shape:
    """The sizes of all parts, of the fields of a configuration."""
    language = {key: settings[key] for key in LANGUAGE_FIELDS if key in settings}
    turned = settings.get("rope_parameters") or {}
    if "rope_theta" in turned:  # where transformers 5 writes it
        language["rope_theta"] = turned["rope_theta"]
    return Shape(**settings.get(OURS, {}), language=language)


def write_checkpoint(
    model: MobileVideoGPT,
    folder: Path,
    *,
    with_image_tower: bool = True,
    shard_size: str = "5GB",
    replace: bool = False,
) -> None:
    """Write config.json and safetensors in the released layout into a new folder, whole or not at all.

    replace: a folder that is there is removed, with everything in it.
    """
    from huggingface_hub import save_torch_state_dict

    if folder.exists() and not replace:
        raise UserError(f"{folder} is there already; give a new folder")
    state = released_state(model)
    if not with_image_tower:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(IMAGE_TOWER)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_torch_state_dict(state, beside, max_shard_size=shard_size, metadata={"format": "pt"})
        text = json.dumps(_released_settings(model.shape), indent=2, sort_keys=True)
        (beside / "config.json").write_text(text + "\n", encoding="utf-8")
        beside.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _released_settings(shape: Shape) -> dict[str, Any]:
    settings: dict[str, Any] = language_settings(shape).to_dict()
    theta = settings.pop("rope_parameters")["rope_theta"]  # the released code reads the older form
    return settings | {
        "model_type": MODEL_TYPE,
        "architectures": ["MobileVideoGPTQwenForCausalLM"],
        "rope_theta": theta,
        "rope_scaling": None,
        "mm_vision_tower": "OpenGVLab/VideoMamba",
        "image_mm_vision_tower": "openai/clip-vit-base-patch16",
        "mm_projector_type": "etp",
        "image_mm_projector_type": "etp",
        "mm_hidden_size": shape.video_width,
        "image_mm_hidden_size": shape.image_width,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "use_mm_proj": True,
    }


class _Pouring:
    """Weights on their way from files into the tensors that want them, and what did not fit."""

    def __init__(self, folder: Path, wanted: Mapping[str, Tensor]) -> None:
        self.folder, self.wanted = folder, wanted
        self.missing = set(wanted)
        self.unexpected: list[str] = []
        self.misshapen: list[str] = []
        self.head: Tensor | None = None

    @torch.no_grad()
    def pour(self, folder: Path, *, clip: bool = False) -> None:
        for path in _files(folder):
            for name, tensor in _tensors(path):
                if name.endswith(POSITION_IDS) or (clip and name.startswith(OTHER_PARTS)):
                    continue
                self._take(IMAGE_TOWER + name.removeprefix("vision_model.") if clip else name, tensor)
        if self.head is None or EMBEDDINGS in self.missing:
            return
        if not torch.equal(self.head, self.wanted[EMBEDDINGS]):
            raise UserError(
                f"the weights in {folder} have a {HEAD} of their own, but config.json says that it is the same as "
                f"{EMBEDDINGS}; set tie_word_embeddings to false there"
            )

    def _take(self, name: str, tensor: Tensor) -> None:
        if name == HEAD and HEAD not in self.wanted and EMBEDDINGS in self.wanted:  # tied, and written all the same
            self.head = tensor.to(self.wanted[EMBEDDINGS].dtype)
        elif name not in self.wanted:
            self.unexpected.append(name)
        elif tensor.shape != self.wanted[name].shape:
            self.missing.discard(name)
            self.misshapen.append(f"{name} {list(tensor.shape)} (wanted {list(self.wanted[name].shape)})")
        else:
            self.missing.discard(name)
            self.wanted[name].copy_(tensor)

    def check(self) -> None:
        kinds = {"missing": sorted(self.missing), "unexpected": sorted(self.unexpected), "other shapes": self.misshapen}
        wrong = [f"{kind}: {_listed(keys)}" for kind, keys in kinds.items() if keys]
        if any(BACKWARD.search(name) for name in self.missing):
            wrong.append("without its _b weights VideoMamba cannot read from the end; use a file that has them")
        if wrong:
            raise UserError(f"the weights in {self.folder} are not those of this Mobile-VideoGPT ({'; '.join(wrong)})")


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def _pour_clip(folder: Path, clip_folder: Path | None, wanted: Mapping[str, Tensor], shape: Shape) -> None:
    if clip_folder is None:
        raise UserError(
            f"the weights in {folder} have no image tower ({IMAGE_TOWER}*); "
            "give the folder of openai/clip-vit-base-patch16 as well"
        )
    settings = _settings(clip_folder)
    settings, ours = settings.get("vision_config", settings), image_settings(shape)
    for key in ("num_attention_heads", "hidden_act"):  # what no shape of a weight tells
        if settings.get(key, getattr(ours, key)) != getattr(ours, key):
            raise UserError(f"the CLIP in {clip_folder} has {key}={settings[key]}; wanted {getattr(ours, key)}")
    poured = _Pouring(clip_folder, {name: tensor for name, tensor in wanted.items() if name.startswith(IMAGE_TOWER)})
    poured.pour(clip_folder, clip=True)
    poured.check()
    log.info("the image tower is that of %s; the checkpoint has none", clip_folder)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the folder of a model in the hub's form") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings; give the folder of a model in the hub's form")
    return settings


def _files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{index} is no index of weights ({error!r}); get it again") from None
            absent = [part for part in names if Path(part).name != part or not (folder / part).is_file()]
            if absent:
                raise UserError(f"{index} names files that are not beside it: {_listed(absent)}; get them")
            return [folder / part for part in names]
    raise UserError(f"{folder} holds no weights (model.safetensors or pytorch_model.bin, or an index of their parts)")


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - no mapping
        else:
            yield from torch.load(path, map_location="cpu", weights_only=True).items()
    except UnpicklingError:  # its own message advises to load the file unsafely
        raise UserError(
            f"{path} cannot be loaded (its pickle is damaged or holds more than tensors); give safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, SafetensorError, AttributeError) as error:
        raise UserError(f"{path} cannot be loaded ({str(error).splitlines()[0]})") from None
