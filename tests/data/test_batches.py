"""Schedules: each row once an epoch, the same for the same seed, taken up where they were left."""

from __future__ import annotations

import numpy as np

from fieldtune.config import Packing
from fieldtune.data.batches import collate
from fieldtune.data.schedule import Schedule, Windows
from tests.models.tiny import rows_of_lengths


def schedule(**changes: int | None) -> Schedule:
    given = {"rows": 10, "micro_batch_size": 2, "accumulation": 2, "seed": 7, "max_epochs": 3, "max_steps": None}
    return Schedule(**{**given, **changes})  # type: ignore[arg-type]


def test_every_row_once_an_epoch_in_another_order_each_time() -> None:
    plan = schedule()
    assert plan.steps_per_epoch == 3 and plan.total_steps == 9
    epochs = [[int(row) for step in range(3 * e, 3 * e + 3) for row in plan.window(step)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [len(plan.window(step)) for step in range(3)] == [4, 4, 2]
    assert [plan.ends_epoch(step) for step in range(9)] == [False, False, True] * 3


def test_seed_decides_the_order() -> None:
    assert np.array_equal(schedule().window(1), schedule().window(1))
    assert not np.array_equal(schedule().window(1), schedule(seed=8).window(1))


def test_the_lesser_of_epochs_and_steps_ends_a_run() -> None:
    assert schedule(max_steps=4).total_steps == 4
    assert schedule(max_steps=4).ends_epoch(3)
    assert schedule(max_steps=100).total_steps == 9


def test_windows_go_on_from_a_saved_position() -> None:
    rows, plan = rows_of_lengths([3, 9, 4, 8, 5, 7, 6, 3, 9, 4]), schedule()
    whole = [window["supervised"] for window in Windows(rows, plan, Packing.rows, 0)]
    first = Windows(rows, plan, Packing.rows, 0)
    begun = iter(first)
    head = [next(begun)["supervised"] for _ in range(4)]
    second = Windows(rows, plan, Packing.rows, 0)
    second.load_state_dict(first.state_dict())
    assert head + [window["supervised"] for window in second] == whole
    assert len(second) == 9


def test_collate_pads_to_the_longest_and_points_at_what_is_trained() -> None:
    rows = rows_of_lengths([3, 6])
    batch = collate(rows, pad_id=0)
    assert batch["ids"].shape == (2, 6)
    assert batch["ids"][0, 3:].tolist() == [0, 0, 0]
    assert len(batch["targets"]) == sum(row.supervised for row in rows)
    for where, target in zip(batch["where"].tolist(), batch["targets"].tolist(), strict=True):
        row, column = divmod(where, 6)
        assert rows[row].trained[column + 1] and rows[row].ids[column + 1] == target
