"""Linear layers together with the function before them, whose output is made again in the backward pass, not kept.

What a layer keeps for its backward pass is most of the memory of training, and on a CPU each kept tensor is also a walk
through fresh memory. The output of a norm or of a gated unit costs one pass over its input to make again, and its
input is kept anyhow (the idea of selective recomputation, arXiv 2205.05198). Weight gradients are added in place where
earlier micro-batches left some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

Gradients = tuple[Tensor | None, ...]


class Function(Protocol):
    """A function of tensors with its gradient written out."""

    def make(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        """The output, and what `back` can use of its making."""
        ...

    def back(self, gradient: Tensor, made_of: Any, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Gradients:
        """The gradient of each input, at least where it is needed; what is in `made_of` may be overwritten."""
        ...


class RMSNorm(NamedTuple):
    """x / rms(x) * weight, over the last dimension (arXiv 1910.07467), at least in fp32."""

    epsilon: float

    def make(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        x, weight = inputs
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(self.epsilon).rsqrt_()
        return (wide * scale).mul_(weight).to(x.dtype), scale

    def back(self, gradient: Tensor, made_of: Any, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Gradients:
        (x, weight), scale = inputs, made_of
        unit = x.to(scale.dtype) * scale
        gradient = gradient.to(scale.dtype)
        by_weight = None
        if needed[1]:
            by_weight = (gradient * unit).flatten(0, -2).sum(0).to(weight.dtype)
        by_unit = gradient * weight
        along = (by_unit * unit).mean(-1, keepdim=True)
        return by_unit.sub_(unit.mul_(along)).mul_(scale).to(x.dtype), by_weight


class LayerNorm(NamedTuple):
    """torch's."""

    epsilon: float

    def make(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        x, weight, bias = inputs
        out, mean, scale = torch.native_layer_norm(x, weight.shape, weight, bias, self.epsilon)
        return out, (mean, scale)

    def back(self, gradient: Tensor, made_of: Any, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Gradients:
        x, weight, bias = inputs
        gradients: Gradients = torch.ops.aten.native_layer_norm_backward(
            gradient, x, weight.shape, *made_of, weight, bias, list(needed)
        )
        return gradients


class SwiGLU(NamedTuple):
    """silu(gate) * up (arXiv 2002.05202)."""

    def make(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        gate, up = inputs
        opened = functional.silu(gate)
        return opened * up, opened

    def back(self, gradient: Tensor, made_of: Any, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Gradients:
        gate, up = inputs
        by_up = made_of.mul_(gradient)
        return torch.ops.aten.silu_backward(gradient * up, gate), by_up


class GELU(NamedTuple):
    """The tanh form."""

    def make(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        return functional.gelu(inputs[0], approximate="tanh"), None

    def back(self, gradient: Tensor, made_of: Any, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Gradients:
        return (torch.ops.aten.gelu_backward(gradient, inputs[0], approximate="tanh"),)


class Identity(NamedTuple):
    """What it is given."""

    def make(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        return inputs[0], None

    def back(self, gradient: Tensor, made_of: Any, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Gradients:
        return (gradient,)


def applied(function: Function, *inputs: Tensor) -> Tensor:
    """The function's output, for autograd; only its inputs are kept."""
    out: Tensor = _Applied.apply(function, *inputs)
    return out


class _Applied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, *inputs: Tensor) -> Tensor:
        out, ctx.made_of = function.make(*inputs)
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, *ctx.function.back(gradient, ctx.made_of, ctx.saved_tensors, ctx.needs_input_grad[1:])


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


def project(
    function: Function, inputs: Sequence[Tensor], modules: Sequence[Any], onto: Tensor | None = None
) -> list[Tensor]:
    """The outputs of linear layers whose input is `function` of `inputs`, and what they are added `onto`.

    Layers in a state not known here are called as they are.
    """
    known = [_tensors_of(module) for module in modules]
    linears = [linear for linear in known if linear is not None]
    if len(linears) < len(known) or torch.is_autocast_enabled(inputs[0].device.type):
        x = inputs[0] if isinstance(function, Identity) else applied(function, *inputs)
        outs = [module(x) for module in modules]
        return outs if onto is None else [onto + out for out in outs]
    shape = _Shape(function, len(inputs), [(linear.flipped, linear.scale) for linear in linears])
    tensors = [tensor for linear in linears for tensor in (linear.weight, linear.bias, linear.down, linear.up)]
    outputs: tuple[Tensor, ...] = _Projections.apply(shape, onto, *inputs, *tensors)
    return list(outputs)


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


class _Shape(NamedTuple):
    """What `_Projections` does, but for the tensors."""

    function: Function
    inputs: int
    linears: list[tuple[bool, float]]  # flipped, scale


class _Projections(torch.autograd.Function):
    """See `project`; the layers' input gradients are summed inside the matrix products."""

    @staticmethod
    def forward(ctx: Any, shape: _Shape, onto: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, weights = tensors[: shape.inputs], tensors[shape.inputs :]
        made, _ = shape.function.make(*inputs)
        x = made.flatten(0, -2)
        outputs, inner = [], []
        for number, (flipped, scale) in enumerate(shape.linears):
            weight, bias, down, up = weights[4 * number : 4 * number + 4]
            out = _product(x, weight if flipped else weight.t(), bias, onto)
            if down is not None:
                inner.append(x @ down.t())
                out.addmm_(inner[-1], up.t(), alpha=scale)
            outputs.append(out.unflatten(0, made.shape[:-1]))
        ctx.shape = shape
        ctx.save_for_backward(*tensors, *inner)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        shape, tensors = ctx.shape, ctx.saved_tensors
        last = shape.inputs + 4 * len(shape.linears)
        inputs, weights, inner = tensors[: shape.inputs], tensors[shape.inputs : last], list(tensors[last:])
        made, made_of = shape.function.make(*inputs)
        x = made.flatten(0, -2)
        onto = gradients[0] if ctx.needs_input_grad[1] else None
        asked, needed = ctx.needs_input_grad[2 : 2 + shape.inputs], ctx.needs_input_grad[2 + shape.inputs :]
        by_x: Tensor | None = None
        results: list[Tensor | None] = []
        for number, (flipped, scale) in enumerate(shape.linears):
            weight, bias, down, up = weights[4 * number : 4 * number + 4]
            gradient = gradients[number].flatten(0, -2).contiguous()
            if any(asked):
                by_x = _add_product(by_x, gradient, weight.t() if flipped else weight)
            by_weight = by_bias = by_down = by_up = None
            if needed[4 * number]:
                by_weight = _by_weight(weight, x, gradient) if flipped else _by_weight(weight, gradient, x)
            if bias is not None and needed[4 * number + 1]:
                by_bias = gradient.sum(0)
            if down is not None:
                by_inner = (gradient @ up).mul_(scale)
                by_down = by_inner.t() @ x
                by_up = (gradient.t() @ inner.pop(0)).mul_(scale)
                if by_x is not None:
                    by_x.addmm_(by_inner, down)
            results += [by_weight, by_bias, by_down, by_up]
        by_inputs: Gradients = (None,) * shape.inputs
        if by_x is not None:
            by_inputs = shape.function.back(by_x.view_as(made), made_of, inputs, asked)
        return None, onto, *by_inputs, *results


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None) -> Tensor:
    if onto is None:
        return x @ weight if bias is None else torch.addmm(bias, x, weight)
    out = torch.addmm(onto.flatten(0, -2), x, weight)
    return out if bias is None else out.add_(bias)


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    return left @ right if total is None else total.addmm_(left, right)


def _by_weight(weight: Tensor, left: Tensor, right: Tensor) -> Tensor | None:
    """left.T @ right, or None where it was added to the gradient that is there: no further pass over both."""
    if weight.is_leaf and weight.requires_grad and weight.grad is not None:
        weight.grad.addmm_(left.t(), right)
        return None
    return left.t() @ right
