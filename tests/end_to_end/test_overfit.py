"""Twenty rows learned by heart: the whole path from text to weights to text is right only if every word comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..stages import FIRST, SECOND, THINGS, lines_of, run_here, write_rows

pytestmark = pytest.mark.slow


ROWS = [
    {
        "prompt": f"The code of {FIRST[number % 10]} {SECOND[number // 10 + number % 7]}?",
        "response": f"{THINGS[number % 14]} {number * 37 % 100}",
    }
    for number in range(20)
]


def learned(folder: Path, *training: str) -> list[dict[str, Any]]:
    """What a model says to its 20 training rows after training."""
    write_rows(folder / "rows.jsonl", ROWS)
    data = ["data=jsonl", f"data.path={folder / 'rows.jsonl'}", "data.split=[1,0,0]", "tracking=off", "trainer=fit"]
    run_here(folder, "prepare", *data)
    run = run_here(folder, "train", *data, "trainer.sample_rows=0", "trainer.weight_decay=0", *training)
    measured = ["evaluation.split=train", "evaluation.max_new_tokens=20", "evaluation.base=false", "tracking=off"]
    return lines_of(run_here(folder, "evaluate", f"run={run.folder}", *measured).folder / "predictions.jsonl")


def assert_known_by_heart(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 20
    wrong = [(row["reference"], row["answers"]["tuned"]) for row in rows if row["reference"] != row["answers"]["tuned"]]
    assert not wrong
    assert all(row["scores"]["tuned"]["ended"] == row["scores"]["tuned"]["exact"] == 1 for row in rows)


def test_a_tiny_gpt2_learns_twenty_rows_by_heart(tmp_path: Path) -> None:
    rate = [
        "trainer.learning_rate=4e-3",
        "trainer.scheduler=linear",
        "trainer.micro_batch_size=5",
        "trainer.accumulation=2",
    ]
    assert_known_by_heart(
        learned(tmp_path, "model=gpt2_tiny", "adapter=none", "hardware.threads=1", "trainer.max_epochs=200", *rate)
    )


def test_an_adapter_of_smollm2_learns_twenty_rows_by_heart(tmp_path: Path, smollm2: Path) -> None:
    rate = ["trainer.learning_rate=3e-3", "trainer.micro_batch_size=10", "trainer.max_epochs=14"]
    shape = ["trainer.scheduler=linear", "trainer.warmup_steps=4", "trainer.clip_norm=1"]
    assert_known_by_heart(learned(tmp_path, "model=smollm2_135m", "adapter=lora", *rate, *shape))
