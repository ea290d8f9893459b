"""The sizes of a Mobile-VideoGPT, and what follows from them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isqrt
from typing import Any

from fieldtune.errors import UserError


def _language(**different: Any) -> dict[str, Any]:
    """Fields of transformers' `Qwen2Config`; what all released sizes have in common, and what differs."""
    common = {"vocab_size": 151936, "num_key_value_heads": 2, "max_position_embeddings": 32768}
    rest = {"tie_word_embeddings": True, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
    return {**common, **rest, **different}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Everything that decides the tensors of a Mobile-VideoGPT. The defaults are the released towers.

    `UserError` where sizes do not go together.
    """

    frames: int = 16  # frames of a film; each is also a context image
    chunk: int = 8  # consecutive frames among which some are chosen
    kept: int = 4  # frames chosen in each chunk
    most_attended: bool = True  # keep the frames with the highest score; False keeps those with the lowest
    image_size: int = 224  # pixels, width and height
    patch: int = 16  # pixels, width and height

    image_layers: int = 12  # CLIP's image tower
    image_width: int = 768
    image_heads: int = 12
    image_inner: int = 3072
    image_grid: int = 12  # a context image becomes image_grid ** 2 embeddings

    video_layers: int = 32  # VideoMamba
    video_width: int = 576
    video_state: int = 16  # numbers of state per channel
    video_conv: int = 4  # tokens that the causal convolution sees
    video_expand: int = 2  # channels per feature
    video_aligned: int = 512  # width of the decoder that its pre-training compared with CLIP
    video_pooled: int = 7  # a chosen frame is pooled to video_pooled ** 2 features
    video_grid: int = 7  # a chunk becomes video_grid ** 2 embeddings

    language: Mapping[str, Any] = field(default_factory=_language)  # fields of transformers' Qwen2Config

    def __post_init__(self) -> None:
        features = self.kept * self.video_pooled**2
        rules = {
            f"frames={self.frames} is no multiple of chunk={self.chunk}": self.frames % self.chunk == 0,
            f"kept={self.kept} is not in 1..chunk={self.chunk}": 1 <= self.kept <= self.chunk,
            f"image_size={self.image_size} is no multiple of patch={self.patch}": self.image_size % self.patch == 0,
            # The projector looks at a chunk's features as one picture.
            f"kept * video_pooled ** 2 = {features} is no square number": isqrt(features) ** 2 == features,
        }
        wrong = [text for text, right in rules.items() if not right]
        if wrong:
            raise UserError(f"no Mobile-VideoGPT can have this shape: {'; '.join(wrong)}; change one of the two")

    @property
    def chunks(self) -> int:
        return self.frames // self.chunk

    @property
    def clip_frames(self) -> int:
        """Frames that VideoMamba sees: those chosen in all chunks, as one clip."""
        return self.chunks * self.kept

    @property
    def patches(self) -> int:
        """Patches of a frame."""
        return (self.image_size // self.patch) ** 2

    @property
    def video_length(self) -> int:
        """Tokens of VideoMamba's sequence, its class token included."""
        return 1 + self.clip_frames * self.patches

    @property
    def step_rank(self) -> int:
        """Rank of the projection to Mamba's step sizes."""
        return -(-self.video_width // 16)

    @property
    def image_embeddings(self) -> int:
        return self.frames * self.image_grid**2

    @property
    def video_embeddings(self) -> int:
        return self.chunks * self.video_grid**2

    @property
    def embeddings(self) -> int:
        """Places that a film takes in the language model's sequence."""
        return self.image_embeddings + self.video_embeddings

    @property
    def hidden(self) -> int:
        """Width of the language model."""
        return int(self.language["hidden_size"])

    def towers(self) -> dict[str, Any]:
        """All but the language model's fields, for a file."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "language"}


MOBILE_VIDEOGPT_05B = Shape(
    language=_language(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14)
)
MOBILE_VIDEOGPT_15B = Shape(
    language=_language(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12)
)

# The same code at a size that a test can train: 72 embeddings a film.
TINY = Shape(
    image_size=48,
    image_layers=2,
    image_width=32,
    image_heads=4,
    image_inner=64,
    image_grid=2,
    video_layers=2,
    video_width=32,
    video_state=4,
    video_aligned=16,
    video_pooled=2,
    video_grid=2,
    language=_language(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
    ),
)
