"""The memory tables of docs/planning.md: GPT-2 on GPUs of 16 GB, and a 7B model's 4-bit adapter training in 24 GB.

python benchmarks/memory_tables.py

No GPU is needed and nothing is allocated: activations are traced, the rest is arithmetic. Not measured on a GPU.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import MistralConfig

from fieldtune.composition import composed
from fieldtune.config import AdapterConfig, AdapterKind, Config, Precision
from fieldtune.data.packing import pack_window
from fieldtune.models.outline import counts, held_by, outline
from fieldtune.models.weights import Source, architecture
from fieldtune.planning.memory import Memory, training_memory
from fieldtune.planning.plan import step_memory
from fieldtune.planning.text import gb
from fieldtune.planning.work import full_rows, work_of_config

T4, CARD = 0.93 * 16e9, 0.93 * 24e9  # bytes that a driver leaves
NF4 = 4.127  # bits of a weight with double quantization (arXiv 2305.14314)


def gpt2(size: str, rows: int, length: int, *more: str) -> Memory:
    """Full fine-tuning, one GPU of those that hold the model; `rows` a GPU, padded or packed to the same."""
    with tempfile.TemporaryDirectory() as empty:
        words = ["data=golf", f"dataset_dir={empty}", f"model=gpt2_{size}", "model.weights=random", "hardware=gpu"]
        trained = ["adapter=none", "trainer=fit", f"trainer.micro_batch_size={rows}", "hardware.precision=fp16"]
        config: Config = composed("train", [*words, *trained, f"model.context_length={length}", *more])
        source = Source(None)
        settings = architecture(config.model, source)
        counted = counts(outline(settings, config.adapter))
        return step_memory(config, settings, counted, work_of_config(config, source, 50257))


def mistral_7b(rows: int, length: int) -> Memory:
    """QLoRA: the base in NF4, LoRA of rank 16 on all linear layers, bf16."""
    settings = MistralConfig(sliding_window=None)  # its defaults are the 7B shape
    adapter = AdapterConfig(kind=AdapterKind.lora, rank=16)
    counted = counts(outline(settings, adapter))
    window = pack_window(full_rows(rows, length, 32000), rows, share=False)
    held = held_by(settings, adapter, Precision.bf16, window, frozen=torch.bfloat16)
    return training_memory(counted, held.values(), gpu=True, bits=NF4)


def row(name: str, found: Memory, room: float) -> str:
    parts = " | ".join(gb(size) for size in found.parts.values())
    return f"| {name} | {parts} | {gb(found.step)} | {'yes' if found.step <= room else 'no'} |"


def main() -> None:
    names = "weights | gradients | optimizer state | activations | logits | workspace | together | fits"
    print(f"| full fine-tuning, fp16 | {names} (16 GB) |\n|---|{'--:|' * 7}---|")
    for size, most in (("124m", 8), ("355m", 8), ("774m", 4), ("1558m", 2)):
        for length in (256, 1024):
            for rows in (most, 1):
                made = gpt2(size, rows, length, "trainer.packing=none")
                print(row(f"{size.upper()}, {rows} x {length}", made, T4), flush=True)
    print(f"\n| QLoRA, Mistral-7B shape, bf16 | {names} (24 GB) |\n|---|{'--:|' * 7}---|")
    for rows, length in ((1, 512), (1, 1024), (1, 2048), (4, 512), (4, 1024)):
        print(row(f"{rows} x {length}", mistral_7b(rows, length), CARD), flush=True)


if __name__ == "__main__":
    main()
