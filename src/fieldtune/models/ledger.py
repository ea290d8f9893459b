"""Which tensors live when: every allocation of some work under fake tensors, which have shapes and no memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(slots=True)
class _Block:
    """A storage: its bytes, the phase it was made in, and the events between which it lives."""

    size: int
    phase: str
    made: int
    freed: int | None = None
    kind: str = ""


@dataclass(slots=True)
class Peak:
    """The largest sum of living bytes within a phase: by kind, or by the phase of origin where no kind was given."""

    parts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.parts.values())


class Ledger(TorchDispatchMode):
    """Counts storages as operations make them and as their last tensor goes, by phases of the work."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """known: tensors that are not counted (the weights)."""
        super().__init__()
        self._blocks: dict[int, _Block] = {}
        self._references: dict[int, Any] = {}
        self._all: list[_Block] = []
        self._marks: list[tuple[int, str]] = [(0, "start")]
        self._event = 0
        self._known = {id(tensor.untyped_storage()): tensor.untyped_storage() for tensor in known}

    def mark(self, phase: str) -> None:
        """What follows belongs to this phase."""
        self._marks.append((self._event, phase))

    def is_a(self, kind: str, tensors: Iterable[Tensor | None]) -> None:
        """Say what some living tensors are."""
        for tensor in tensors:
            block = self._blocks.get(id(tensor.untyped_storage())) if tensor is not None else None
            if block is not None:
                block.kind = kind

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._blocks or key in self._known:
            return
        self._event += 1
        block = _Block(storage.nbytes(), self._marks[-1][1], self._event)
        self._blocks[key] = block
        self._all.append(block)

        def gone(_: Any) -> None:
            self._event += 1
            block.freed = self._event
            self._blocks.pop(key, None)
            self._references.pop(key, None)

        self._references[key] = weakref.ref(storage, gone)

    def peaks(self) -> dict[str, Peak]:
        """The peak of each phase. A phase that comes again counts as one."""
        changes = [0] * (self._event + 2)
        for block in self._all:
            changes[block.made] += block.size
            if block.freed is not None:
                changes[block.freed] -= block.size
        highest: dict[str, tuple[int, int]] = {}  # phase -> living bytes, event
        living, marks = 0, iter([*self._marks[1:], (self._event + 1, "")])
        phase, (until, following) = self._marks[0][1], next(marks)
        for event in range(self._event + 1):
            living += changes[event]
            while event > until:
                phase, (until, following) = following, next(marks)
            if living > highest.get(phase, (-1, 0))[0]:
                highest[phase] = (living, event)
        return {phase: Peak(self._living_at(event)) for phase, (_, event) in highest.items()}

    def _living_at(self, event: int) -> dict[str, int]:
        parts: dict[str, int] = {}
        for block in self._all:
            if block.made <= event and (block.freed is None or event < block.freed):
                name = block.kind or block.phase
                parts[name] = parts.get(name, 0) + block.size
        return parts


@contextmanager
def counting(known: Iterable[Tensor]) -> Iterator[Ledger]:
    """A ledger of what is done within."""
    ledger = Ledger(known)
    with ledger:
        yield ledger
