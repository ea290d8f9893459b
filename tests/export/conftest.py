"""Finished runs that exports are made of: an adapter on a tiny Mistral, a GPT-2 of which every weight was trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.runs import Run, find_run

from ..end_to_end.conftest import made_once
from ..stages import question_rows, run_here, write_rows

SYSTEM = {"role": "system", "content": 'You are a quartermaster.\nAnswer "in one sentence", with the numbers.'}


def trained(folder: Path, *words: str) -> Run:
    """A run of some steps on 40 short rows with a system text."""
    write_rows(folder / "rows.jsonl", [{"messages": [SYSTEM, *row["messages"]]} for row in question_rows(40)])
    common = (
        "data=jsonl",
        f"data.path={folder / 'rows.jsonl'}",
        "data.split=[0.7,0.15,0.15]",
        f"dataset_dir={folder / 'datasets'}",
        "model.context_length=512",
        "trainer=fit",
        "trainer.max_steps=6",
        "trainer.eval_every=3",
        "trainer.sample_rows=0",
        "trainer.learning_rate=3e-3",
        "evaluation.max_new_tokens=40",
        "tracking=off",
        "hardware.threads=1",
        "name=Tiny Run",
    )
    run_here(folder, "prepare", *common, *words)
    run_here(folder, "train", *common, *words)
    return find_run(folder / "outputs", "latest")


def cached(folder: Path) -> str:
    """A cache of the test's own for models, with this machine's for llama.cpp's converter, which is fetched once."""
    shared = Path("~/.cache/fieldtune/llama.cpp").expanduser()
    shared.mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir()
    (folder / "cache" / "llama.cpp").symlink_to(shared)
    return f"cache_dir={folder / 'cache'}"


@pytest.fixture(scope="session")
def mistral_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    def make(folder: Path) -> None:
        trained(folder, "model=mistral_tiny", "adapter=lora", cached(folder))

    return find_run(made_once(tmp_path_factory, "export-mistral", make) / "outputs", "latest")


@pytest.fixture(scope="session")
def gpt2_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    def make(folder: Path) -> None:
        trained(folder, "model=gpt2_tiny", "adapter=none", cached(folder))

    return find_run(made_once(tmp_path_factory, "export-gpt2", make) / "outputs", "latest")
