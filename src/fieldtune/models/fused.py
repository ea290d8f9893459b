"""The same layers with fewer passes over memory: norms, gated units, rotary positions and projections as one step each.

transformers writes a layer as many small operations; on a CPU each is a pass over the activations, forth and back, and
keeps its input. Here a layer's class is exchanged for one that computes the same function with the gradient written
out (`models.projections`). Only classes listed in `EXCHANGES` are exchanged; tests hold each against the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer, MistralRMSNorm

from fieldtune.models.projections import (
    GELU,
    Function,
    Identity,
    LayerNorm,
    RMSNorm,
    SwiGLU,
    applied,
    project,
    projects,
)
from fieldtune.models.tree_attention import attention


def fuse(model: nn.Module) -> int:
    """Exchange the layers of a model, in place; returns how many. Parameters and their names stay as they are."""
    count = 0
    for module in model.modules():
        fused = EXCHANGES.get(type(module))
        if fused is not None and fused.fits(module):
            module.__class__ = fused  # a class, not a bound method: copies of the module keep working
            count += 1
    return count


class _RMSNorm(nn.Module):
    """A norm that no linear layer follows: the last one."""

    @staticmethod
    def fits(module: Any) -> bool:
        return True

    def forward(self, hidden_states: Tensor) -> Tensor:
        return applied(RMSNorm(self.variance_epsilon), hidden_states, self.weight)  # type: ignore[arg-type]


class FusedLlamaRMSNorm(_RMSNorm, LlamaRMSNorm):
    pass


class FusedMistralRMSNorm(_RMSNorm, MistralRMSNorm):
    pass


class FusedEmbedding(nn.Embedding):
    """A table look-up whose gradient is added to the rows that were looked up.

    The table is most of a small model, and mostly untouched: a dense gradient of it, added to that of the output head
    that shares it, would be written and read in full at every step.
    """

    @staticmethod
    def fits(module: Any) -> bool:
        return module.padding_idx is None and module.max_norm is None and not module.scale_grad_by_freq

    def forward(self, input: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and self.weight.requires_grad and self.weight.is_leaf):
            plain: Tensor = functional.embedding(input, self.weight)
            return plain
        anchor = self.weight.new_empty(0, requires_grad=True)  # so that the step is recorded without the table
        return _LookUp.apply(anchor, input, self.weight.detach(), [self.weight])  # type: ignore[no-any-return]


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, ids: Tensor, table: Tensor, owner: list[nn.Parameter]) -> Tensor:
        ctx.ids, ctx.owner = ids, owner
        return functional.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.owner
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, ctx.ids.flatten(), gradient.flatten(0, -2).to(weight.dtype))
        return None, None, None, None


class _LlamaLayer(nn.Module):
    """Attention with rotary positions, then a gated unit. Generation, with its cache, takes the original's way."""

    @staticmethod
    def fits(module: Any) -> bool:
        attn, unit = module.self_attn, module.mlp
        silu = type(unit.act_fn).__name__ in ("SiLU", "SiLUActivation")
        linears = [attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, unit.gate_proj, unit.up_proj, unit.down_proj]
        return silu and projects(linears)

    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, past_key_values: Any = None, **kwargs: Any
    ) -> Any:
        if past_key_values is not None:
            return super().forward(hidden_states, attention_mask, past_key_values=past_key_values, **kwargs)
        attn: Any = self.self_attn
        unit: Any = self.mlp
        norm, after = _norm(self.input_layernorm), _norm(self.post_attention_layernorm)
        parts = project(norm[0], (hidden_states, norm[1]), [attn.q_proj, attn.k_proj, attn.v_proj])
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in parts)
        cosine, sine = (table.unsqueeze(2) for table in kwargs["position_embeddings"])
        query, key = (_Rotate.apply(part, cosine, sine) for part in (query, key))
        heads = (part.transpose(1, 2) for part in (query, key, value))
        seen = _attended(attn, heads, attention_mask, attn.attention_dropout, kwargs)
        (middle,) = project(Identity(), (seen,), [attn.o_proj], onto=hidden_states)
        gates = project(after[0], (middle, after[1]), [unit.gate_proj, unit.up_proj])
        return project(SwiGLU(), gates, [unit.down_proj], onto=middle)[0]


def _norm(module: Any) -> tuple[RMSNorm, Tensor]:
    return RMSNorm(module.variance_epsilon), module.weight


def _attended(attn: Any, heads: Iterable[Tensor], mask: Any, dropout: float, kwargs: dict[str, Any]) -> Tensor:
    """Attention's output [rows, tokens, width]. heads: queries, keys and values [rows, heads, tokens, width]."""
    query, key, value = heads
    out, _ = attention(
        attn,
        query,
        key,
        value,
        mask,
        scaling=attn.scaling,
        dropout=dropout if attn.training else 0.0,
        layout=kwargs.get("layout"),
        trunk=kwargs.get("trunk"),
        keep=kwargs.get("keep"),
    )
    return out.flatten(2)


class FusedLlamaLayer(_LlamaLayer, LlamaDecoderLayer):
    pass


class FusedMistralLayer(_LlamaLayer, MistralDecoderLayer):
    pass


class _Rotate(torch.autograd.Function):
    """x [1, tokens, heads, width] turned by the angles of its positions (arXiv 2104.09864), halves as transformers
    has them; the gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(x, cosine, sine, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        cosine, sine = ctx.saved_tensors
        return _turned(gradient, cosine, sine, -1), None, None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor, direction: int) -> Tensor:
    half = x.shape[-1] // 2
    # Both halves of the tables are alike, so turning back only changes the sine's sign.
    out = x * cosine
    out[..., :half].addcmul_(x[..., half:], sine[..., :half], value=-direction)
    out[..., half:].addcmul_(x[..., :half], sine[..., half:], value=direction)
    return out


class FusedGPT2Block(GPT2Block):
    """GPT-2's "gelu_new" is the tanh form that torch has as one operation."""

    @staticmethod
    def fits(module: Any) -> bool:
        attn, unit = module.attn, module.mlp
        norms = type(module.ln_1) is type(module.ln_2) is nn.LayerNorm
        known = projects([attn.c_attn, attn.c_proj, unit.c_fc, unit.c_proj])
        return (
            norms and known and type(unit.act).__name__ == "NewGELUActivation" and not hasattr(module, "ln_cross_attn")
        )

    def forward(
        self,
        hidden_states: Any,
        past_key_values: Any = None,
        attention_mask: Any = None,
        encoder_hidden_states: Any = None,
        **kwargs: Any,
    ) -> Any:
        if past_key_values is not None or encoder_hidden_states is not None:
            return super().forward(hidden_states, past_key_values, attention_mask, encoder_hidden_states, **kwargs)
        attn, unit = self.attn, self.mlp
        (joined,) = project(*_layer_norm(self.ln_1, hidden_states), [attn.c_attn])
        heads = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in joined.chunk(3, dim=-1))
        seen = _attended(attn, heads, attention_mask, attn.attn_dropout.p, kwargs)
        middle = _added(hidden_states, Identity(), (seen,), attn.c_proj, attn.resid_dropout)
        hidden = project(*_layer_norm(self.ln_2, middle), [unit.c_fc])
        return _added(middle, GELU(), hidden, unit.c_proj, unit.dropout)


def _added(onto: Tensor, function: Function, inputs: Sequence[Tensor], linear: Any, dropout: nn.Dropout) -> Tensor:
    if dropout.p and dropout.training:
        dropped: Tensor = onto + dropout(project(function, inputs, [linear])[0])
        return dropped
    return project(function, inputs, [linear], onto=onto)[0]


def _layer_norm(module: nn.LayerNorm, x: Tensor) -> tuple[LayerNorm, tuple[Tensor, Tensor, Tensor]]:
    return LayerNorm(module.eps), (x, module.weight, module.bias)


EXCHANGES: dict[type, Any] = {
    LlamaRMSNorm: FusedLlamaRMSNorm,
    LlamaDecoderLayer: FusedLlamaLayer,
    MistralRMSNorm: FusedMistralRMSNorm,
    MistralDecoderLayer: FusedMistralLayer,
    GPT2Block: FusedGPT2Block,
    nn.Embedding: FusedEmbedding,
}
