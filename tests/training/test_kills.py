"""Kill -9 at random moments, a checkpoint half-written among them, and the run ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldtune.data.schedule import Schedule

from . import kills


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kills.prepared(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
def test_twenty_kills_at_random_moments(work: Path) -> None:
    count, epochs = 20, 70
    words = f"trainer.max_epochs={epochs}"
    whole = kills.new_run(work, work / "whole", words)
    kills.finish(whole)
    killed = kills.new_run(work, work / "killed", words)
    started = (killed / "run.json").read_bytes()
    survival = kills.kill_and_finish(killed, count, seed=20)
    steps = survival.steps
    kills.assert_same_run(killed, whole, 3 * epochs)
    assert survival.kills.total() == count and survival.half_written >= survival.kills["in a write"] > 0
    assert steps["planned"] < steps["executed"] <= steps["planned"] + count * kills.EVERY
    assert 1 < steps["attempts"] <= count + 1
    assert (killed / "run.json").read_bytes() == started  # the W&B id too
    # Each step was told once (above), and the steps of an epoch are its rows, each once.
    schedule = Schedule(30, 5, 2, seed=1337, max_epochs=epochs, max_steps=None)
    for epoch in range(epochs):
        rows = [row for step in range(3 * epoch, 3 * epoch + 3) for row in schedule.window(step)]
        assert sorted(rows) == list(range(30))


@pytest.mark.slow
def test_two_kills_one_in_a_write(work: Path) -> None:
    """The quick form of the above."""
    whole, killed = (kills.new_run(work, work / name, "trainer.max_epochs=4") for name in ("one", "other"))
    kills.finish(whole)
    process = kills.start(killed)
    kills.wait_until(process, lambda: kills.begun(killed)[1] >= 5)
    process.kill()
    assert kills.status_of(process) == -9
    process = kills.start(killed)
    kills.wait_until(process, lambda: kills.begun(killed)[0] == 2)
    assert kills.kill_while_writing(process, killed)
    assert list(killed.glob("checkpoints/.step-*.tmp"))
    steps = kills.finish(killed).manifest()["steps"]
    kills.assert_same_run(killed, whole, 12)
    assert steps["attempts"] == 3 and 12 < steps["executed"] <= 12 + 2 * kills.EVERY
    assert not list(killed.glob("checkpoints/.*"))
