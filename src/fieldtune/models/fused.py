"""The same layers with fewer passes over memory: norms, gated units, rotary positions and projections as one step each.

transformers writes a layer as many small operations; on a CPU each is a pass over the activations, forth and back, and
keeps its input. Here a layer's class is exchanged for one that computes the same function with the gradient written
out. Only classes listed in `_exchanges` are exchanged; tests hold each against the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

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


class FusedRMSNorm(LlamaRMSNorm):
    """x / rms(x) * weight, over the last dimension (arXiv 1910.07467)."""

    @staticmethod
    def fits(module: Any) -> bool:
        return True

    def forward(self, hidden_states: Tensor) -> Tensor:
        normed: Tensor = _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)
        return normed


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (wide * scale).mul_(weight).to(x.dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, scale = ctx.saved_tensors
        unit = x.to(scale.dtype) * scale
        gradient = gradient.to(scale.dtype)
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = (gradient * unit).flatten(0, -2).sum(0).to(weight.dtype)
        by_unit = gradient * weight
        along = (by_unit * unit).mean(-1, keepdim=True)
        return by_unit.sub_(unit.mul_(along)).mul_(scale).to(x.dtype), by_weight, None


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


class FusedMLP(LlamaMLP):
    """down(silu(gate(x)) * up(x))."""

    @staticmethod
    def fits(module: Any) -> bool:
        silu = type(module.act_fn).__name__ in ("SiLU", "SiLUActivation")
        return silu and projects([module.gate_proj, module.up_proj, module.down_proj])

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, [self.gate_proj, self.up_proj])
        return project(_SwiGLU.apply(gate, up), [self.down_proj])[0]


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        by_gate = torch.ops.aten.silu_backward(gradient * up, gate)
        return by_gate, functional.silu(gate).mul_(gradient)


class FusedGPT2MLP(GPT2MLP):
    """proj(gelu(fc(x))): GPT-2's "gelu_new" is the tanh form that torch has as one operation."""

    @staticmethod
    def fits(module: Any) -> bool:
        return type(module.act).__name__ == "NewGELUActivation"

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden = functional.gelu(self.c_fc(hidden_states), approximate="tanh")
        return self.dropout(self.c_proj(hidden))  # type: ignore[no-any-return]


class FusedAttention(LlamaAttention):
    """Attention with rotary positions; passes that are not packed (generation) take the original's way."""

    @staticmethod
    def fits(module: Any) -> bool:
        return projects([module.q_proj, module.k_proj, module.v_proj, module.o_proj])

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if kwargs.get("layout") is None or position_embeddings is None:
            return super().forward(hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs)  # type: ignore[no-any-return]
        parts = project(hidden_states, [self.q_proj, self.k_proj, self.v_proj])
        query, key, value = (part.unflatten(-1, (-1, self.head_dim)) for part in parts)
        cosine, sine = (table.unsqueeze(2) for table in position_embeddings)
        query, key = (_Rotate.apply(part, cosine, sine) for part in (query, key))
        out, _ = attention(
            self,
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attention_mask,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            layout=kwargs["layout"],
            trunk=kwargs.get("trunk"),
            keep=kwargs.get("keep"),
        )
        return project(out.flatten(2), [self.o_proj])[0], None


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


class _Linear(NamedTuple):
    """A projection's tensors: x @ weight.T (or @ weight if `flipped`) + bias + scale * x @ down.T @ up.T."""

    weight: Tensor
    flipped: bool
    bias: Tensor | None
    down: Tensor | None
    up: Tensor | None
    scale: float


def projects(modules: Sequence[Any]) -> bool:
    """Whether `project` knows all of these layers: linear ones, plain or with a LoRA adapter of PEFT's."""
    return all(type(getattr(module, "base_layer", module)) in (nn.Linear, Conv1D) for module in modules)


def project(x: Tensor, modules: Sequence[Any]) -> list[Tensor]:
    """The outputs of linear layers with the same input. Layers in a state not known here are called as they are."""
    known = [_tensors_of(module) for module in modules]
    linears = [linear for linear in known if linear is not None]
    if len(linears) < len(known) or torch.is_autocast_enabled(x.device.type):
        return [module(x) for module in modules]
    shapes = [(linear.flipped, linear.scale) for linear in linears]
    tensors = [tensor for linear in linears for tensor in (linear.weight, linear.bias, linear.down, linear.up)]
    outputs: tuple[Tensor, ...] = _Projections.apply(x.flatten(0, -2), shapes, *tensors)
    return [out.unflatten(0, x.shape[:-1]) for out in outputs]


def _tensors_of(module: Any) -> _Linear | None:
    if type(module) in (nn.Linear, Conv1D):
        return _Linear(module.weight, type(module) is Conv1D, module.bias, None, None, 0.0)
    base: Any = getattr(module, "base_layer", None)
    if type(base) not in (nn.Linear, Conv1D) or module.disable_adapters or module.merged:
        return None
    if len(module.active_adapters) != 1 or getattr(module, "lora_variant", None):
        return None
    (name,) = module.active_adapters
    dropout = module.lora_dropout[name]
    if not (isinstance(dropout, nn.Identity) or dropout.p == 0 or not module.training):
        return None
    down, up = module.lora_A[name], module.lora_B[name]
    if up.bias is not None:
        return None
    return _Linear(base.weight, type(base) is Conv1D, base.bias, down.weight, up.weight, module.scaling[name])


class _Projections(torch.autograd.Function):
    """Linear layers of one input [tokens, width]; their input gradients are summed inside the matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shapes: Any, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        outputs, inner = [], []
        for number, (flipped, scale) in enumerate(shapes):
            weight, bias, down, up = tensors[4 * number : 4 * number + 4]
            assert weight is not None
            turned = weight if flipped else weight.t()
            out = x @ turned if bias is None else torch.addmm(bias, x, turned)
            if down is not None and up is not None:
                inner.append(x @ down.t())
                out.addmm_(inner[-1], up.t(), alpha=scale)
            outputs.append(out)
        ctx.shapes, ctx.number = shapes, len(inner)
        ctx.save_for_backward(x, *inner, *tensors)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, *rest = ctx.saved_tensors
        inner, tensors = rest[: ctx.number], rest[ctx.number :]
        by_x: Tensor | None = None
        results: list[Tensor | None] = []
        needed = ctx.needs_input_grad[2:]
        for number, (flipped, scale) in enumerate(ctx.shapes):
            weight, bias, down, up = tensors[4 * number : 4 * number + 4]
            gradient = gradients[number].contiguous()
            if ctx.needs_input_grad[0]:
                by_x = _add_product(by_x, gradient, weight.t() if flipped else weight)
            by_weight = by_bias = by_down = by_up = None
            if needed[4 * number]:
                by_weight = x.t() @ gradient if flipped else gradient.t() @ x
            if bias is not None and needed[4 * number + 1]:
                by_bias = gradient.sum(0)
            if down is not None:
                by_inner = (gradient @ up).mul_(scale)
                by_down = by_inner.t() @ x
                by_up = (gradient.t() @ inner.pop(0)).mul_(scale)
                if by_x is not None:
                    by_x.addmm_(by_inner, down)
            results += [by_weight, by_bias, by_down, by_up]
        return by_x, None, *results


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    return left @ right if total is None else total.addmm_(left, right)


EXCHANGES: dict[type, Any] = {
    LlamaRMSNorm: FusedRMSNorm,
    LlamaMLP: FusedMLP,
    LlamaAttention: FusedAttention,
    GPT2MLP: FusedGPT2MLP,
    nn.Embedding: FusedEmbedding,
}
