"""The memory tables of docs/planning.md: GPT-2 on GPUs of 16 GB, and a 7B model's 4-bit adapter training in 24 GB.

python benchmarks/memory_tables.py

No GPU is needed and nothing is allocated: activations are traced, the rest is arithmetic. Not measured on a GPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from transformers import MistralConfig

from fieldtune.composition import composed
from fieldtune.config import Config
from fieldtune.models.outline import counts, outline
from fieldtune.models.weights import Source, architecture
from fieldtune.planning.memory import Memory
from fieldtune.planning.plan import step_memory
from fieldtune.planning.text import gb
from fieldtune.planning.work import work_of_config

T4, CARD = 0.93 * 16e9, 0.93 * 24e9  # bytes that a driver leaves


def gpt2(size: str, rows: int, length: int, *more: str) -> Memory:
    """Full fine-tuning, one GPU of those that hold the model; `rows` a GPU, padded or packed to the same."""
    with tempfile.TemporaryDirectory() as empty:
        words = ["data=golf", f"dataset_dir={empty}", f"model=gpt2_{size}", "model.weights=random", "hardware=gpu"]
        trained = ["adapter=none", "trainer=fit", f"trainer.micro_batch_size={rows}", "hardware.precision=fp16"]
        config: Config = composed("train", [*words, *trained, f"model.context_length={length}", *more])
        return _step_memory(config, Source(None), 50257)


def mistral_7b(rows: int, length: int, *more: str) -> Memory:
    """QLoRA by `experiment=fitness_7b`, full rows that have nothing in common."""
    with tempfile.TemporaryDirectory() as folder:
        shape = MistralConfig(vocab_size=32768, sliding_window=None, dtype="bfloat16")
        shape.save_pretrained(folder)
        model = [f"model.weights=folder:{folder}", "model.revision=null", f"model.context_length={length}"]
        batch = [f"trainer.micro_batch_size={rows}", f"trainer.accumulation={16 // rows}", f"dataset_dir={folder}"]
        config: Config = composed("train", ["experiment=fitness_7b", *model, *batch, *more])
        return _step_memory(config, Source(Path(folder)), shape.vocab_size)


def _step_memory(config: Config, source: Source, vocabulary: int) -> Memory:
    settings = architecture(config.model, source)
    counted = counts(outline(settings, config.adapter))
    return step_memory(config, settings, counted, work_of_config(config, source, vocabulary))


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
    for layers, kept in (("computed again", "true"), ("kept", "false")):
        print(f"\n| layers {layers}, rows x tokens | {names} (24 GB) |\n|---|{'--:|' * 7}---|")
        for rows, length in ((1, 512), (1, 1024), (1, 2048), (4, 512), (4, 1024), (4, 2048)):
            made = mistral_7b(rows, length, f"trainer.activation_checkpointing={kept}")
            print(row(f"{rows} x {length}", made, CARD), flush=True)


if __name__ == "__main__":
    main()
