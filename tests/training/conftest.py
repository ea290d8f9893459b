"""Forty short rows and what is trained on them, made once a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..stages import TINY, question_rows, run_here, write_rows


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared data set of 30 / 6 / 4 short rows."""
    folder = tmp_path_factory.mktemp("work")
    write_rows(folder / "rows.jsonl", question_rows(40))
    run_here(folder, "prepare", *words(folder))
    return folder


def words(work: Path, *more: str) -> list[str]:
    """Command-line words of a tiny run on the rows of `work`."""
    data = ["data=jsonl", f"data.path={work / 'rows.jsonl'}", "data.split=[0.75,0.15,0.1]"]
    training = ["trainer.micro_batch_size=5", "trainer.accumulation=2", "trainer.learning_rate=1e-3"]
    return [*data, *TINY, "trainer=fit", *training, *more]
