"""What would make a run fit: overrides, cheapest first, each tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fieldtune.config import Accelerator, AdapterKind, Config, Family, Precision
from fieldtune.errors import UserError
from fieldtune.planning.plan import Plan

GPT2_SIZES = ("gpt2_1558m", "gpt2_774m", "gpt2_355m", "gpt2_124m")
SHORTEST = 128  # tokens of a context that is worth proposing


@dataclass(frozen=True, slots=True)
class Remedy:
    """words: overrides to add. costs: what they change. plan: what comes of them."""

    words: tuple[str, ...]
    costs: str
    plan: Plan


def remedies(plan: Plan, again: Callable[[Sequence[str]], Plan]) -> list[Remedy]:
    """Overrides that make the run fit, cheapest first; if none does alone, those that do together.

    again: plans with further words. Empty if nothing helps.
    """
    found: list[Remedy] = []
    together: tuple[str, ...] = ()
    for group, costs in _groups(plan.config):
        smallest: tuple[str, ...] = ()
        for words in group:
            tried = _try(again, words)
            if tried is None:
                continue
            smallest = words if tried.memory.peak < plan.memory.peak else smallest
            if tried.fits:
                found.append(Remedy(words, costs, tried))
                break
        together += smallest
        if not found and together != smallest:
            both = _try(again, together)
            if both is not None and both.fits:
                return [Remedy(together, "together", both)]
    return found


def _try(again: Callable[[Sequence[str]], Plan], words: Sequence[str]) -> Plan | None:
    try:
        return again(words)
    except UserError:  # a combination that the configuration's rules refuse
        return None


def _groups(config: Config) -> Iterator[tuple[list[tuple[str, ...]], str]]:
    """Overrides of one kind, mildest first, and what they cost; kinds from cheapest to dearest."""
    trainer = config.trainer
    rows: list[tuple[str, ...]] = []
    size, parts = trainer.micro_batch_size, trainer.accumulation
    while size > 1 and size % 2 == 0:
        size, parts = size // 2, parts * 2
        rows.append((f"trainer.micro_batch_size={size}", f"trainer.accumulation={parts}"))
    yield rows, "the same gradients, somewhat slower"
    if config.hardware.accelerator is Accelerator.gpu and config.hardware.precision is Precision.fp32:
        yield [("hardware.precision=bf16",)], "less precise activations"
    if not trainer.activation_checkpointing:
        yield [("trainer.activation_checkpointing=true",)], "the same gradients, about a third slower"
    if config.adapter.kind is AdapterKind.none:
        yield [("adapter=lora",)], "an adapter is trained, not the whole model"
    if config.adapter.kind is not AdapterKind.qlora and config.model.family is not Family.gpt2:
        yield [("adapter=qlora",)], "an adapter is trained on a base in 4 bits"
    shorter: list[tuple[str, ...]] = []
    length = config.model.context_length
    while length // 2 >= SHORTEST:
        length //= 2
        shorter.append((f"model.context_length={length}",))
    yield shorter, "longer rows are left out"
    if config.model.family is Family.gpt2 and config.model.name in GPT2_SIZES:
        smaller = GPT2_SIZES[GPT2_SIZES.index(config.model.name) + 1 :]
        sizes: list[tuple[str, ...]] = [(f"model={name}",) for name in smaller]
        yield sizes, "a smaller model"
