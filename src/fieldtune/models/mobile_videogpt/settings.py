"""The configuration of a Mobile-VideoGPT as transformers knows it: Qwen2's, under the released model type.

Importing this module lets transformers' `AutoConfig` and `AutoTokenizer` read folders of the released layout.
"""

from __future__ import annotations

from transformers import AutoConfig, Qwen2Config

MODEL_TYPE = "MobileVideoGPT_qwen"


class MobileVideoGPTConfig(Qwen2Config):  # type: ignore[misc]
    """The language model's fields; those of the towers stand in config.json, and `checkpoint.read_shape` reads them."""

    model_type = MODEL_TYPE


AutoConfig.register(MODEL_TYPE, MobileVideoGPTConfig)
