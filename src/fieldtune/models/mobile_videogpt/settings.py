"""The configuration of a Mobile-VideoGPT as transformers knows it: Qwen2's, under the released model type.

Importing this module lets transformers' `AutoConfig` and `AutoTokenizer` read folders of the released layout.
"""

from __future__ import annotations

from transformers import AutoConfig, Qwen2Config

MODEL_TYPE = "MobileVideoGPT_qwen"
OURS = "fieldtune"  # the field that holds towers of other sizes than the released ones; not there with these


class MobileVideoGPTConfig(Qwen2Config):  # type: ignore[misc]
    """The language model's fields, and `OURS`. `checkpoint.shape_of` gives the sizes of all parts."""

    model_type = MODEL_TYPE


AutoConfig.register(MODEL_TYPE, MobileVideoGPTConfig)
