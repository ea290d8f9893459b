"""Mobile-VideoGPT (arXiv 2503.21782): two frozen towers look at a film, two projectors speak to a Qwen2.5."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, Qwen2ForCausalLM

from fieldtune.models.mobile_videogpt.frame_choice import choose_frames
from fieldtune.models.mobile_videogpt.projectors import Projector, pool_patches
from fieldtune.models.mobile_videogpt.settings import MobileVideoGPTConfig
from fieldtune.models.mobile_videogpt.shapes import Shape
from fieldtune.models.mobile_videogpt.video_mamba import VideoMamba

FILM = ("context", "frames", "images", "video")  # what `get_image_features` takes, beside ids


class Look(NamedTuple):
    """What the towers see in a film. It does not change while they are frozen, so a cache may keep it."""

    images: Tensor  # [frames, patches, width of CLIP]
    video: Tensor  # [chunks, kept * video_pooled ** 2, width of VideoMamba]
    chosen: Tensor  # the film's frames that VideoMamba saw, by number: [chunks, kept], int64


class MobileVideoGPT(nn.Module):
    """The network of a `Shape`, with random weights. `checkpoint.read_checkpoint` makes it with released ones.

    The towers begin frozen and stay in evaluation mode. Projectors and language model are trainable. To whoever takes
    models of transformers it is one: what is not its own is its language model's.
    """

    base_model_prefix = "language_model"  # PEFT asks for it

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.image_tower = CLIPVisionModel(image_settings(shape))
        self.video_tower = VideoMamba(shape)
        self.image_projector = Projector(shape.image_width, shape.hidden, shape.image_grid)
        self.video_projector = Projector(shape.video_width, shape.hidden, shape.video_grid)
        self.language_model = Qwen2ForCausalLM(language_settings(shape))
        for tower in self.towers:
            tower.requires_grad_(False)
        self.generation_config: Any = self.language_model.generation_config
        self.train()

    @property
    def towers(self) -> tuple[nn.Module, nn.Module]:
        return self.image_tower, self.video_tower

    @property
    def config(self) -> Any:
        """The language model's, where transformers' functions look for it."""
        return self.language_model.config

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of layers whose weights are shared out together, where transformers' models have them."""
        return list(self.language_model._no_split_modules or ())

    @property
    def towers_frozen(self) -> bool:
        return not any(one.requires_grad for tower in self.towers for one in tower.parameters())

    def set_towers_apart(self, device: torch.device) -> None:
        """Take the towers, which go to a device, out of this module's tree: who moves, casts or shares out its weights
        leaves theirs."""
        for name in ("image_tower", "video_tower"):
            tower = self.get_submodule(name)
            delattr(self, name)
            self.__dict__[name] = tower.to(device)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for tower in self.towers:
            tower.eval()
        return self

    def get_input_embeddings(self) -> Any:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.language_model.get_output_embeddings()

    def look(self, context: Tensor, frames: Tensor) -> Look:
        """What the towers see. context and frames [frames, 3, size, size]: the same frames as CLIP and as VideoMamba
        want their pixels (`preprocess`)."""
        shape = self.shape
        wanted = (shape.frames, 3, shape.image_size, shape.image_size)
        for name, pixels in (("context", context), ("frames", frames)):
            if pixels.shape != wanted:
                raise ValueError(f"{name} has the shape {list(pixels.shape)}; this model takes {list(wanted)}")
        # The last but one layer, without the class token: what the released projectors were trained on.
        images = self.image_tower(context, output_hidden_states=True).hidden_states[-2][:, 1:]
        by_chunk = images.unflatten(0, (shape.chunks, shape.chunk))
        chosen = choose_frames(by_chunk, shape.kept, most_attended=shape.most_attended)
        chosen = chosen + shape.chunk * torch.arange(shape.chunks, device=chosen.device)[:, None]
        clip = frames[chosen.flatten().to(frames.device)]
        features = self.video_tower(clip[None])[0, 1:].unflatten(0, (shape.clip_frames, shape.patches))
        pooled = pool_patches(features, shape.video_pooled)
        return Look(images, pooled.reshape(shape.chunks, -1, shape.video_width), chosen)

    def project(self, look: Look) -> Tensor:
        """[embeddings, hidden]: those of all context images, then those of all chunks."""
        return self._projected(look.images[None], look.video[None])[0]

    def _projected(self, images: Tensor, video: Tensor) -> Tensor:
        """`project` of several films at once: [films, embeddings, hidden]."""
        parts = (self.image_projector(images.flatten(0, 1)), self.video_projector(video.flatten(0, 1)))
        return torch.cat([part.unflatten(0, (len(images), -1)).flatten(1, 2) for part in parts], 1)

    def features(self, context: Tensor, frames: Tensor) -> Tensor:
        """The film as the language model sees it: [embeddings, hidden], 2,402 of them in the released models."""
        return self.project(self.look(context, frames))

    def embed(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Input embeddings [batch, length, hidden] of ids [batch, length]. A negative id is a media slot: row by row,
        from the left, the slots take the next of `features` [slots, hidden]. `ValueError` if the numbers differ."""
        slots = ids < 0
        embedded: Tensor = self.get_input_embeddings()(ids.clamp(min=0))
        given, wanted = 0 if features is None else len(features), int(slots.sum())
        if given != wanted:
            raise ValueError(f"{wanted} media slots and {given} visual embeddings; give one for each slot")
        if features is None:
            return embedded
        return embedded.masked_scatter(slots[..., None], features.to(embedded.dtype))

    def get_image_features(
        self,
        context: Tensor | None = None,
        frames: Tensor | None = None,
        images: Tensor | None = None,
        video: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Of several films, where transformers' models have it: `.pooler_output` [films, embeddings, hidden].

        Either their pixels, context and frames [films, frames, 3, size, size], or what frozen towers saw in them,
        images and video: a `Look`'s, [films, ...].
        """
        if images is None or video is None:
            assert context is not None and frames is not None
            looks = [self.seen(*film) for film in zip(context, frames, strict=True)]
            images, video = (torch.stack(parts) for parts in list(zip(*looks, strict=True))[:2])
        return SimpleNamespace(pooler_output=self._projected(images, video))

    def seen(self, context: Tensor, frames: Tensor) -> Look:
        """`look`; of frozen towers in their own number format, so that it is the one that a cache keeps."""
        if not self.towers_frozen:
            return self.look(context, frames)
        with torch.no_grad(), torch.autocast(context.device.type, enabled=False):
            return self.look(context, frames)

    def forward(
        self,
        input_ids: Tensor | None = None,
        features: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        **rest: Any,
    ) -> Any:
        """The language model's output. input_ids and features: as in `embed`; instead of features the arguments of
        `get_image_features`. rest: what `Qwen2ForCausalLM` takes."""
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self._embedded(input_ids, features, rest)
        return self.language_model(inputs_embeds=inputs_embeds, **rest)

    def generate(self, input_ids: Tensor, **rest: Any) -> Tensor:
        """Ids with their continuations [batch, length + new], as the language model's `generate` gives them."""
        vectors = self._embedded(input_ids, None, rest)
        found: Any = self.language_model.generate(input_ids=input_ids.clamp(min=0), inputs_embeds=vectors, **rest)
        return torch.cat([input_ids, found[:, input_ids.shape[1] :]], 1)

    def _embedded(self, ids: Tensor, features: Tensor | None, rest: dict[str, Any]) -> Tensor:
        """`embed`, with the features of the films in `rest`, which are taken out of it."""
        film = {name: rest.pop(name) for name in FILM if name in rest}
        if film:
            features = self.get_image_features(**film).pooler_output.flatten(0, 1)
        return self.embed(ids, features)

    def prepare_inputs_for_generation(self, *args: Any, **rest: Any) -> Any:
        return self.language_model.prepare_inputs_for_generation(*args, **rest)

    @property
    def is_gradient_checkpointing(self) -> bool:
        return any(getattr(part, "gradient_checkpointing", False) for part in self.language_model.modules())

    def gradient_checkpointing_enable(self, **how: Any) -> None:
        """Of the language model's layers."""
        self.language_model.gradient_checkpointing_enable(**how)

    def save_pretrained(self, folder: str, **_: Any) -> None:
        """Write config.json and weights in the released layout into a folder; what it holds of them is replaced."""
        from fieldtune.models.mobile_videogpt.checkpoint import write_checkpoint

        write_checkpoint(self, Path(folder), replace=True)


def image_settings(shape: Shape) -> Any:
    """transformers' `CLIPVisionConfig` of the image tower."""
    return CLIPVisionConfig(
        hidden_size=shape.image_width,
        intermediate_size=shape.image_inner,
        num_hidden_layers=shape.image_layers,
        num_attention_heads=shape.image_heads,
        image_size=shape.image_size,
        patch_size=shape.patch,
    )


def language_settings(shape: Shape) -> Any:
    """transformers' configuration of the language model."""
    return MobileVideoGPTConfig(**shape.language)


def parameter_counts(model: MobileVideoGPT) -> dict[str, int]:
    """Parameters by part. What two layers share counts once."""
    return {name: sum(one.numel() for one in part.parameters()) for name, part in model.named_children()}
