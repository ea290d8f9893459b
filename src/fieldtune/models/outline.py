"""A model's architecture without its weights: what it counts, and what a window of rows makes it hold.

The counts come from the meta device. The memory comes from running the real network, forward and backward, on fake
tensors (shapes without memory) with a `Ledger`: once with two layers and once with three, for layers are alike and
each further one adds the same to every phase. A vision tower is traced with all of its layers, and looks at the
window's own pictures.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fieldtune.config import AdapterConfig, AdapterKind, Precision
from fieldtune.data.batches import MicroBatch, Window
from fieldtune.errors import UserError
from fieldtune.models.adapters import adapt, parameter_counts
from fieldtune.models.ledger import Ledger, counting
from fieldtune.models.loss import LanguageModelLoss, unwrapped
from fieldtune.models.quantized import numbers
from fieldtune.models.real_inputs import RealStaysReal, looking_really, pixels
from fieldtune.models.recompute import recompute_layers
from fieldtune.models.tree_attention import Trunk
from fieldtune.models.vision_parts import PARTS, WHOLE, parameters_in, parts_of, text_body

FEW = (2, 3)  # layers of the traced models
HALF = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}

# Where a block of memory belongs that was made in a phase; what was made elsewhere is workspace.
ORIGIN = {"forward": "activations", "trunk forward": "activations", "loss": "logits"}


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a model with its adapter. Parameters shared by two layers count once."""

    parameters: int
    trainable: int
    tensors: int  # trainable ones
    in_layers: int  # parameters of the language model's matrices, which every token passes
    head: int  # parameters of the output head, which the tokens with a label pass
    layers: int
    width: int
    cache_width: int  # features of a token's keys and values in a layer
    vocabulary: int
    seeing: int = 0  # parameters of vision tower and projector, which a picture's patches pass
    seeing_trained: int = 0
    patch: int = 1  # numbers of a patch, as it enters the tower


def counts(model: Any) -> Counts:
    """Of a model on any device, the meta device included."""
    inner = unwrapped(model)
    settings = inner.config.get_text_config()
    parameters, head = list(model.parameters()), inner.get_output_embeddings().weight
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)} | {id(head)}
    total, trainable = parameter_counts(model)
    seeing = _seeing(inner)
    heads = settings.num_attention_heads
    head_width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    return Counts(
        parameters=total,
        trainable=trainable,
        tensors=sum(p.requires_grad for p in parameters),
        in_layers=sum(numbers(p) for p in parameters if id(p) not in tables and id(p) not in seeing),
        head=head.numel(),
        layers=settings.num_hidden_layers,
        width=settings.hidden_size,
        cache_width=2 * head_width * (getattr(settings, "num_key_value_heads", None) or heads),
        vocabulary=head.shape[0],
        seeing=sum(p.numel() for p in seeing.values()),
        seeing_trained=sum(p.numel() for p in seeing.values() if p.requires_grad),
        patch=_patch(inner.config),
    )


def _seeing(inner: Any) -> dict[int, Tensor]:
    """The parameters of vision tower and projector, adapters included."""
    if parts_of(inner) is None:
        return {}
    return {id(parameter): parameter for part in WHOLE for _, parameter in parameters_in(inner, part)}


def _patch(settings: Any) -> int:
    from fieldtune.models.film_outline import MODEL_TYPE, film_patch

    if settings.model_type == MODEL_TYPE:
        return film_patch(settings)
    tower = getattr(settings, "vision_config", None)
    if tower is None:
        return 1
    return 3 * int(tower.patch_size) ** 2 * int(getattr(tower, "temporal_patch_size", 1))


def outline(settings: Any, adapter: AdapterConfig, layers: int | None = None) -> Any:
    """The architecture of transformers' `settings` with its adapter, in fp32, on the meta device: it has no weights.

    layers: of the language model; None for all of them.
    """
    settings = copy.deepcopy(settings)
    if layers is not None:
        text = settings.get_text_config()
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's own choices
        model = _network(settings, adapter)
        model.get_input_embeddings().padding_idx = None  # as `weights.build` leaves it
        if adapter.kind is AdapterKind.qlora:
            _stand_in_for_packed(model)
        return adapt(model, adapter)


def _network(settings: Any, adapter: AdapterConfig) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    from fieldtune.models.film_outline import MODEL_TYPE, film_network

    if settings.model_type == MODEL_TYPE:
        if adapter.kind is AdapterKind.qlora:
            raise UserError("adapter=qlora with a Mobile-VideoGPT is not done here; give adapter=lora")
        return film_network(settings)
    architecture = AutoModelForImageTextToText if settings.model_type in PARTS else AutoModelForCausalLM
    return architecture.from_config(settings, dtype=torch.float32)


class _Unpacked(nn.Linear):
    """Stands for a packed layer, which `models.fused` leaves as it is; a class of its own is left alone too."""


def _stand_in_for_packed(model: nn.Module) -> None:
    for module in text_body(model).modules():
        if type(module) is nn.Linear and module is not model.get_output_embeddings():  # type: ignore[operator]
            module.__class__ = _Unpacked


def held_by(
    settings: Any,
    adapter: AdapterConfig,
    precision: Precision,
    window: Window,
    frozen: torch.dtype = torch.float32,
    *,
    recompute: bool = False,
) -> dict[str, dict[str, int]]:
    """Bytes that an optimizer step on `window` holds besides the weights and the optimizer's state.

    Returns {phase: {part: bytes}} at the peak of each phase; the parts are gradients, activations, logits and
    workspace; copies of weights in half precision count as what made them. frozen: format of the weights that are
    not trained. recompute: activation checkpointing. `UserError` if the model cannot be traced.
    """
    window = _few_micro_batches(window)
    with torch.random.fork_rng(devices=[]):  # a training that plans itself draws the same numbers
        return _held(settings, adapter, precision, window, frozen, recompute)


def _held(
    settings: Any, adapter: AdapterConfig, precision: Precision, window: Window, frozen: torch.dtype, recompute: bool
) -> dict[str, dict[str, int]]:
    layers = settings.get_text_config().num_hidden_layers
    low, high = FEW if layers > max(FEW) else (layers, layers)
    with traceable(settings):
        fewer = _trace(on_fakes(settings, adapter, low, frozen, recompute), window, precision)
        if low == high:
            return fewer
        more = _trace(on_fakes(settings, adapter, high, frozen, recompute), window, precision)
    times = (layers - low) / (high - low)
    return {phase: _extended(parts, more.get(phase, parts), times) for phase, parts in fewer.items()}


@contextmanager
def traceable(settings: Any) -> Iterator[None]:
    """Where fakes are computed with: an architecture may do something that they cannot."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"a {settings.model_type} cannot be traced ({reason}), so its memory is not known") from error


def _extended(parts: Mapping[str, int], more: Mapping[str, int], times: float) -> dict[str, int]:
    names = parts.keys() | more.keys()
    grown = {name: parts.get(name, 0) + times * (more.get(name, 0) - parts.get(name, 0)) for name in names}
    return {name: max(0, round(value)) for name, value in grown.items()}


def on_fakes(
    settings: Any, adapter: AdapterConfig, layers: int, frozen: torch.dtype, recompute: bool
) -> tuple[FakeTensorMode, LanguageModelLoss]:
    """The network of a few layers of the language model on fake tensors of the CPU."""
    network = LanguageModelLoss(outline(settings, adapter, layers))
    seeing = _seeing(unwrapped(network.model))  # in fp32 always
    if recompute:
        recompute_layers(network.model, same_dropout=False)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, Any] = {}  # a tensor that two layers share stays one
    with mode:
        for module in network.modules():
            for name, old in module._parameters.items():
                if old is not None:
                    kept = old.dtype if id(old) in seeing else frozen
                    made.setdefault(id(old), nn.Parameter(_empty(old, kept), requires_grad=old.requires_grad))
                    module._parameters[name] = made[id(old)]
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = _empty(buffer, buffer.dtype)
    return mode, network.train()


def _empty(like: Tensor, frozen: torch.dtype) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype if like.requires_grad else frozen, device="cpu")


def _few_micro_batches(window: Window) -> Window:
    """The window with its largest micro-batch, after another one if there are more: gradients are there by then."""
    batches = sorted(window["micro_batches"], key=lambda batch: batch["ids"].numel())
    return {**window, "micro_batches": batches[-2:]}


def _trace(
    faked: tuple[FakeTensorMode, LanguageModelLoss], window: Window, precision: Precision
) -> dict[str, dict[str, int]]:
    mode, network = faked
    half = HALF.get(precision)
    # Fake tensors of other devices need a build of torch that knows them; the sizes are those of the CPU.
    autocast = torch.autocast("cpu", dtype=half) if half is not None else nullcontext()
    with mode:
        trunk_batch = _faked(mode, window["trunk"])
        batches = [_faked(mode, batch) for batch in window["micro_batches"]]
        known = [*network.parameters(), *pixels([trunk_batch, *batches])]
        with counting(known) as ledger, autocast, ExitStack() as stack:
            if parts_of(unwrapped(network.model)) is not None:
                stack.enter_context(looking_really(unwrapped(network.model)))
            _step(network, trunk_batch, batches, ledger)
    return {phase: _named(peak.parts) for phase, peak in ledger.peaks().items()}


def _named(parts: Mapping[str, int]) -> dict[str, int]:
    named: dict[str, int] = {}
    for name, size in parts.items():
        part = name if name == "gradients" else ORIGIN.get(name, "workspace")
        named[part] = named.get(part, 0) + size
    return named


def _faked(mode: FakeTensorMode, batch: MicroBatch | None) -> Any:
    if batch is None:
        return None
    faked = {key: mode.from_tensor(value) if isinstance(value, Tensor) else value for key, value in batch.items()}
    layout = batch["layout"]
    if batch["media"] is not None:  # where and rows; what is looked at stays real
        media: Any = batch["media"]
        faked["media"] = {**media, "where": mode.from_tensor(media["where"]), "rows": mode.from_tensor(media["rows"])}
    if layout is not None:  # segments are done one after the other: the one with most keys decides
        faked["layout"] = layout.longest()
    return faked


def _step(network: LanguageModelLoss, of_trunk: Any, batches: list[Any], ledger: Ledger) -> None:
    """The passes of `training.window.backward_window`, with a mark where a phase begins."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.register_post_accumulate_grad_hook(lambda p: ledger.is_a("gradients", [p.grad]))
    inner = unwrapped(network.model)
    body = text_body(inner)
    layers = next(part for part in body.modules() if isinstance(part, nn.ModuleList))
    which = [""]

    def at_first_layer(module: Any, arguments: Any, out: Any) -> None:
        hidden, name = out[0] if isinstance(out, tuple) else out, which[0]
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: ledger.mark(f"{name}lower layers"))

    def at_end(module: Any, arguments: Any, out: Any) -> None:
        ledger.mark("loss")
        name = which[0]
        if out.last_hidden_state.requires_grad:
            out.last_hidden_state.register_hook(lambda gradient: ledger.mark(f"{name}upper layers"))

    hooks = [layers[0].register_forward_hook(at_first_layer), body.register_forward_hook(at_end)]
    trunk, trunk_loss = Trunk(), None
    if of_trunk is not None:
        which[0] = "trunk "
        ledger.mark("trunk forward")
        trunk_loss, _ = network(**of_trunk, keep=trunk)
        which[0] = ""
    for batch in batches:
        ledger.mark("forward")
        loss, _ = network(**batch, trunk=trunk)
        with _backward(batch):
            (loss / 2).backward()
        ledger.is_a("gradients", [parameter.grad for parameter in trainable])
        del loss
    if trunk_loss is not None:
        with _backward(of_trunk):
            (trunk.graft(trunk_loss) / 2).backward()
        ledger.is_a("gradients", [parameter.grad for parameter in trainable])
    for hook in hooks:
        hook.remove()


def _backward(batch: Any) -> Any:
    """A tower whose layers are computed again asks for numbers again."""
    return RealStaysReal() if batch["media"] is not None else nullcontext()
