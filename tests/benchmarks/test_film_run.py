"""The benchmark of whole runs with the media cache and without, on a model of a test's size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_both_runs_are_compared(tmp_path: Path) -> None:
    small = ["--tiny", "--films", "8", "--epochs", "2", "--seconds", "2", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "film_run.py"), *small], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with the cache / without" in done.stdout and "data wait after the first epoch" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["losses_apart"] <= 1e-5
    assert found["kept"]["made"] == 8 and "8 entries" in found["said"]
    for run in ("cached", "plain"):
        assert 0 < found[run]["films"] < found[run]["whole"]
        assert all(0 <= share <= 1 for share in found[run]["data_wait"].values())
