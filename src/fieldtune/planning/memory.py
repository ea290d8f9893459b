"""Bytes: what training and answering hold at their peaks. Arithmetic on counts and on what a trace found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from fieldtune.models.outline import Counts

FP32 = 4
STATE = 8  # bytes of AdamW's two moments a trained parameter
# With both in 8 bits: a byte each, and an fp32 scale for each 256 of them.
STATE_8BIT = 2 + 2 * FP32 / 256
# Bits of a weight in NF4 (arXiv 2305.14314): 4, and an 8-bit scale for 64 of them, of which 256 share one in fp32;
# without double quantization the scale is fp32.
NF4_DOUBLE, NF4 = 4 + 8 / 64 + 32 / (64 * 256), 4 + 32 / 64
PARTS = ("weights", "gradients", "optimizer state", "activations", "logits", "workspace")

# A CPU worker's heap is never given back, and a block of tensor memory, which is aligned, does not fit the gap that one
# of its size left: measured, a share of what comes and goes in a step. A fixed part: thread buffers, tables of rows,
# code that is loaded by its first use.
CPU_GAPS = 0.2
CPU_FIXED = 60_000_000
# A GPU's context and the libraries' workspaces; its allocator's rounding and gaps. Assumed, not measured by us.
GPU_FIXED = 700_000_000
GPU_GAPS = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device. parts: at the peak of an optimizer step. loading: before it, while the weights come in and
    frozen towers look at films."""

    parts: Mapping[str, int]
    loading: int

    @property
    def step(self) -> int:
        return sum(self.parts.values())

    @property
    def peak(self) -> int:
        return max(self.step, self.loading)


def training_memory(
    counts: Counts,
    held: Iterable[Mapping[str, int]],
    *,
    gpu: bool,
    file_bytes: int = 0,
    looking: int = 0,
    bits: float = 32,
    rest: int = 2,
    state: float = STATE,
) -> Memory:
    """The peak of a device that holds all parameters.

    held: {part: bytes} of each phase of an optimizer step, besides weights and optimizer state (see `outline.held_by`).
    file_bytes: of files that stand in memory beside the weights made of them. looking: what frozen towers hold that
    look at films before the first step. bits: of a frozen parameter in the
    layers; with fewer than 32, what is not trained and not in the layers has `rest` bytes, and a layer's matrices are
    unpacked into 16 bits where they are used. state: bytes of the optimizer's a trained parameter.
    """
    weights = weight_bytes(counts, bits, rest)
    fixed, gaps = (GPU_FIXED, GPU_GAPS) if gpu else (CPU_FIXED, CPU_GAPS)
    largest: Mapping[str, int] = max(held, key=lambda parts: sum(parts.values()))
    coming = sum(size for part, size in largest.items() if part != "gradients")
    parts = {part: largest.get(part, 0) for part in PARTS} | {
        "weights": weights,
        "optimizer state": round(state * counts.trainable),
    }
    parts["workspace"] += fixed + round(gaps * coming)
    if not gpu:  # in the end the best weights are read back: their file is mapped, the heap is still as large
        parts["workspace"] += FP32 * counts.trainable
    if bits < 16:
        parts["workspace"] += 2 * ceil(counts.in_layers / counts.layers)
    return Memory(parts, loading=weights + fixed + max(looking, 0 if gpu else file_bytes))


def weight_bytes(counts: Counts, bits: float = 32, rest: int = 2) -> int:
    """All parameters: fp32, or those in the layers, where frozen, in fewer bits, and tables of `rest` bytes; of what
    sees in fp32 always."""
    if bits >= 32:
        return FP32 * counts.parameters
    trained = counts.trainable - counts.seeing_trained
    trained_in_layers = trained if trained < counts.in_layers else 0
    packed = counts.in_layers - trained_in_layers
    tables = counts.parameters - counts.in_layers - counts.seeing
    return round(packed * bits / 8) + rest * tables + FP32 * (trained + counts.seeing)


@dataclass(frozen=True, slots=True)
class Answering:
    """Bytes while answers are generated: the weights, the cache of keys and values, the rest."""

    weights: int
    cache: int
    workspace: int
    loading: int

    @property
    def peak(self) -> int:
        return max(self.weights + self.cache + self.workspace, self.loading)


def answering_memory(counts: Counts, rows: int, tokens: int, *, gpu: bool, half: bool, bits: float = 32) -> Answering:
    """`rows` answered at a time, of `tokens` tokens each, prompt and answer. half: weights and cache in 16 bits. bits:
    of a frozen parameter in the layers, if they are packed."""
    size = 2 if half else FP32
    weights = size * counts.parameters if bits >= 16 else weight_bytes(counts, bits, size)
    fixed = GPU_FIXED if gpu else CPU_FIXED
    cache = rows * tokens * counts.layers * counts.cache_width * size
    # A layer of the prompts' pass holds some eight vectors a token. A cache that grows is copied, a layer at a time;
    # scores of the next token are sorted and summed in fp32.
    passing = 8 * rows * tokens * counts.width * size
    workspace = fixed + passing + cache // counts.layers + rows * counts.vocabulary * FP32 * 4
    copied = FP32 * counts.parameters if half and bits >= 16 else 0
    return Answering(weights, cache, workspace, loading=weights + fixed + copied)
