"""What a model that sees puts in the places of pictures and films, and the first half of that, which can be kept.

That half is what a frozen vision tower of transformers' families gives to its projector: a look. `projected` goes on
from there as the model's own `get_image_features` does. A look is [tiles, tokens, width] of a picture, or of a film
with its frames as tiles; of Qwen2-VL it is [places, width], where a place has the patches side by side that its
projector merges. `kept_looks` keeps them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fieldtune.data.media import MediaBatch, Shown
from fieldtune.models.film_frames import Tensors
from fieldtune.models.vision_parts import projector_of, towers_of

FILMS_APART = ("pixel_values_videos",)  # inputs of `get_video_features`; other families see films as pictures
PICTURES, FILMS = "looks", "film_looks"  # names of looks among the inputs of a pass
TILES = {PICTURES: "tiles", FILMS: "film_tiles"}  # how many tiles each picture or film has


def embedded(inner: Any, ids: Tensor, media: MediaBatch) -> Tensor:
    """What the language model is given for ids [rows, length] with the media of `media`: [rows, length, width]."""
    inputs = media["inputs"]
    features = torch.cat(list(projected(inner, inputs) if are_looks(inputs) else _features(inner, inputs)))
    vectors = inner.get_input_embeddings()(ids.clamp(min=0))
    seen = features.index_select(0, media["rows"]).to(vectors.dtype)
    placed: Tensor = vectors.flatten(0, 1).index_copy(0, media["where"], seen).view_as(vectors)
    return placed


def _features(inner: Any, inputs: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """What tower and projector make of pixels, of pictures and then of films."""
    apart = {name: value for name, value in inputs.items() if name in FILMS_APART}
    others = {name: value for name, value in inputs.items() if name not in FILMS_APART}
    if others:
        yield from _rows(inner.get_image_features(**others, return_dict=True).pooler_output)
    if apart:
        yield from _rows(inner.get_video_features(**apart, return_dict=True).pooler_output)


def _rows(found: Any) -> Sequence[Tensor]:
    """Features of pictures, a tensor or one each, as rows [places, width]."""
    return found if isinstance(found, list | tuple) else [found.flatten(0, -2)]


@torch.no_grad()
def look(inner: Any, pixels: Mapping[str, Tensor]) -> Tensor:
    """What the tower sees in the pixels of one picture or film, on the tower's device.

    The model itself is left as it is: it may be training in another thread.
    """
    device = next(towers_of(inner)[0].parameters()).device
    there = {name: value.to(device) for name, value in pixels.items()}
    seen: Tensor = _LOOKS[inner.config.model_type](inner, there)
    return seen


def as_inputs(shown: Shown, seen: Tensor) -> Tensors:
    """A picture's or film's look as a pass takes it; see `projected`."""
    name = PICTURES if shown.film is None else FILMS
    sizes = {"image_sizes": torch.tensor([shown.size])} if shown.film is None else {}
    return {name: seen, TILES[name]: torch.tensor([len(seen)]), **sizes}


def are_looks(inputs: Mapping[str, Tensor]) -> bool:
    """Whether a pass gets looks in place of pixels."""
    return PICTURES in inputs or FILMS in inputs


def are_rounded(inputs: Mapping[str, Tensor]) -> bool:
    """Whether a pass gets looks of 16 bits."""
    return any(inputs[name].dtype != torch.float32 for name in TILES if name in inputs)


def projected(inner: Any, inputs: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """What stands at the places of pictures and then of films, [places, width of the language model] each."""
    projector = projector_of(inner)
    kind = next(projector.parameters()).dtype
    for name in (PICTURES, FILMS):
        if name in inputs:
            looks = {**inputs, name: inputs[name].to(kind)}
            yield from _PROJECTED[inner.config.model_type](inner, projector, looks, name)


def _llava_look(inner: Any, pixels: Mapping[str, Tensor]) -> Tensor:
    name = next(name for name in ("pixel_values", *FILMS_APART) if name in pixels)
    tiles = pixels[name].flatten(0, -4)
    hidden = inner.model.vision_tower(tiles, output_hidden_states=True, return_dict=True).hidden_states
    layers = inner.config.vision_feature_layer
    seen = torch.cat([hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)], -1)
    return seen[:, 1:] if inner.config.vision_feature_select_strategy == "default" else seen


def _idefics_look(inner: Any, pixels: Mapping[str, Tensor]) -> Tensor:
    apart = _without(inner.model, "connector", nn.Identity())
    seen: Tensor = apart.get_image_features(**pixels, return_dict=True).last_hidden_state
    return seen


def _qwen_look(inner: Any, pixels: Mapping[str, Tensor]) -> Tensor:
    tower = inner.model.visual
    apart = _without(tower, "merger", _SideBySide(tower.spatial_merge_size**2))
    seen: Tensor = apart(pixels["pixel_values"].type(tower.dtype), grid_thw=pixels["image_grid_thw"]).pooler_output
    return seen


class _SideBySide(nn.Module):
    """In the place of a merger: [patches, width] -> [places, patches of a place * width]."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.reshape(-1, self.patches * hidden.shape[-1])


def _without(module: nn.Module, name: str, instead: nn.Module) -> Any:
    """A module that shares all weights with another, but for one part."""
    apart = copy.copy(module)
    apart._modules = {**module._modules, name: instead}
    return apart


def _flat(inner: Any, projector: Any, inputs: Mapping[str, Tensor], name: str) -> list[Tensor]:
    return [projector(inputs[name]).flatten(0, -2)]


def _next(inner: Any, projector: Any, inputs: Mapping[str, Tensor], name: str) -> list[Tensor]:
    return _packed(
        inner.model,
        projector(inputs[name]).split(inputs[TILES[name]].tolist()),
        inputs["image_sizes"],
        vision_feature_select_strategy=inner.config.vision_feature_select_strategy,
    )


def _onevision(inner: Any, projector: Any, inputs: Mapping[str, Tensor], name: str) -> list[Tensor]:
    apart, tiles = projector(inputs[name]), inputs[TILES[name]].tolist()
    if name == PICTURES:
        ratio = inner.config.vision_aspect_ratio
        return _packed(inner.model, apart.split(tiles), inputs["image_sizes"], vision_aspect_ratio=ratio)
    newline = inner.model.image_newline[None].to(apart.dtype)
    pooled = inner.model.apply_pooling(apart)
    return [torch.cat([film.flatten(0, 1), newline]) for film in pooled.split(tiles)]


def _packed(model: Any, tiles: Any, sizes: Tensor, **more: Any) -> list[Tensor]:
    """Tiles of each picture as one, by the model's own rule."""
    packed: list[Tensor] = model.pack_image_features(tiles, sizes, image_newline=model.image_newline, **more)[0]
    return packed


def _merged(inner: Any, projector: Any, inputs: Mapping[str, Tensor], name: str) -> list[Tensor]:
    patches = inner.model.visual.spatial_merge_size**2
    together = inputs[name]
    return [projector(together.view(len(together) * patches, -1))]


_LOOKS: dict[str, Callable[[Any, Mapping[str, Tensor]], Tensor]] = {
    "llava": _llava_look,
    "llava_next": _llava_look,
    "llava_onevision": _llava_look,
    "smolvlm": _idefics_look,
    "idefics3": _idefics_look,
    "qwen2_vl": _qwen_look,
    "qwen2_5_vl": _qwen_look,
}
_PROJECTED: dict[str, Callable[[Any, Any, Mapping[str, Tensor], str], list[Tensor]]] = {
    "llava": _flat,
    "llava_next": _next,
    "llava_onevision": _onevision,
    "smolvlm": _flat,
    "idefics3": _flat,
    "qwen2_vl": _merged,
    "qwen2_5_vl": _merged,
}
