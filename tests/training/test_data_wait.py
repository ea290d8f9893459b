"""What a run says about the time that its steps waited for data."""

from __future__ import annotations

from fieldtune.training.data_wait import DataWait


def test_the_first_epoch_counts_apart() -> None:
    wait = DataWait()
    assert wait.facts() == {} and wait.line() == ""
    assert wait.add(3.0, 1.0, 0) == 0.75
    assert wait.line() == "data wait: 75.0% of step time"
    assert wait.add(0.0, 3.0, 1) == 0.0
    assert wait.add(1.0, 4.0, 2) == 0.2
    assert wait.facts() == {"first_epoch": 0.75, "later_epochs": 0.125}
    assert wait.line() == "data wait: 12.5% of step time after the first epoch"


def test_it_goes_on_from_a_checkpoint() -> None:
    before, after = DataWait(), DataWait()
    before.add(1.0, 1.0, 0)
    after.load_state_dict(before.state_dict())
    after.add(1.0, 3.0, 1)
    assert after.facts() == {"first_epoch": 0.5, "later_epochs": 0.25}
    assert before.facts() == {"first_epoch": 0.5}
