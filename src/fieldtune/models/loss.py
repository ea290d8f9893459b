"""The loss: cross-entropy summed over supervised tokens, with logits only where a label is.

The network returns (loss sum, supervised tokens) instead of a mean: only the sum over a whole optimizer step divided
by its number of tokens is the gradient of one big batch, whatever the rows' lengths (transformers PR 34191).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fieldtune.data.media import MediaBatch
from fieldtune.models.cross_entropy import losses, summed_cross_entropy
from fieldtune.models.layout import Layout
from fieldtune.models.looks import embedded
from fieldtune.models.soft_caps import output_head
from fieldtune.models.tree_attention import NAME, Trunk, mask_for, register
from fieldtune.models.vision_parts import text_body


class LanguageModelLoss(nn.Module):
    """Wraps a causal language model of transformers so that forward gives (loss sum, supervised tokens).

    Of a model that sees, pictures go through its tower and projector in the pass in which their places stand.
    """

    def __init__(self, model: nn.Module, *, fused: bool = True) -> None:
        """fused: layers are exchanged for those of `models.fused`, in place, and a plain output head is taken apart."""
        super().__init__()
        self.model = model
        self.fused = fused
        self.idle_media: MediaBatch | None = None  # see `data.media.idle_media`
        if fused:
            from fieldtune.models.fused import fuse

            fuse(model)
        register()
        # A vision tower's attention, which is not causal, stays as it is.
        text_body(unwrapped(model)).set_attn_implementation(NAME)

    def forward(
        self,
        ids: Tensor,
        where: Tensor,
        targets: Tensor,
        counts: Tensor,
        positions: Tensor | None = None,
        layout: Layout | None = None,
        media: MediaBatch | None = None,
        trunk: Trunk | None = None,
        keep: Trunk | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A micro-batch (see `data.batches.MicroBatch`). keep: filled by a window's trunk, which its micro-batches
        then read as `trunk`.

        Returns the loss summed over the supervised tokens (nats, fp32) and their number.
        """
        at_labels, head = self._hidden_at(ids, where, positions, layout, media, trunk, keep)
        return summed_cross_entropy(at_labels, head, targets, counts, fused=self.fused), counts.sum()

    def token_losses(
        self,
        ids: Tensor,
        where: Tensor,
        targets: Tensor,
        positions: Tensor | None,
        layout: Layout | None,
        media: MediaBatch | None = None,
        **_: Any,
    ) -> Tensor:
        """The loss of each label [labels], without gradients."""
        at_labels, head = self._hidden_at(ids, where, positions, layout, media)
        return losses(at_labels, head, targets, fused=self.fused)

    def _hidden_at(
        self,
        ids: Tensor,
        where: Tensor,
        positions: Tensor | None,
        layout: Layout | None,
        media: MediaBatch | None = None,
        trunk: Trunk | None = None,
        keep: Trunk | None = None,
    ) -> tuple[Tensor, nn.Module]:
        """The last hidden states at the labels [labels, width], and the head that makes logits of them."""
        inner = unwrapped(self.model)
        media = self.idle_media if media is None else media
        packed: dict[str, Any] = {}
        if layout is not None:
            seen = mask_for(layout, ids.shape[1], trunk, ids.device)
            # transformers takes a mask of four dimensions as it is; without any it would make its own.
            mask = ids.new_empty(1, 1, 1, 0) if seen is None else seen
            packed = {"position_ids": positions, "attention_mask": mask, "layout": layout, "trunk": trunk}
            packed["keep"] = keep
        elif positions is not None:
            packed = {"position_ids": positions}
        entered = {"input_ids": ids} if media is None else {"inputs_embeds": embedded(inner, ids, media)}
        hidden = text_body(inner)(**entered, use_cache=False, **packed).last_hidden_state
        return hidden.flatten(0, 1).index_select(0, where), output_head(inner)


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper (its adapter layers stay in place), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
