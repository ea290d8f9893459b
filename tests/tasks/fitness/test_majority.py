"""The baseline says what most training rows say, counted here from the rows' own facts."""

from __future__ import annotations

from collections import Counter

from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.generate import generate
from fieldtune.tasks.fitness.task import TASK

ROWS = list(generate(Data(count=240), 5))
CHANGES = [row for row in ROWS if row.meta["kind"] == "plan_modification"]


def test_each_metric_has_its_own_most_common_value() -> None:
    rule = TASK.baseline(ROWS)
    assert rule is not None
    for name, keys in {
        "action": ("action",),
        "decision": ("action", "workout"),
        "direction": ("direction",),
        "workout": ("workout",),
    }.items():
        counts = Counter(tuple(row.meta[key] for key in keys) for row in CHANGES)
        right = sum(value or 0 for row in ROWS if (value := rule.score(row).get(name)) is not None)
        assert right == max(counts.values()), name
        assert right < 0.75 * len(CHANGES)  # or it would be no test of a model
    assert all(rule.score(row) == {} for row in ROWS if row.meta["kind"] != "plan_modification")
    assert "decision" in rule.about


def test_without_plan_changes_there_is_none() -> None:
    assert TASK.baseline(row for row in ROWS if row.meta["kind"] != "plan_modification") is None


def test_each_json_answer_has_the_schema_of_its_kind() -> None:
    for row in ROWS:
        schema = TASK.answer_schema(row)
        if row.meta["kind"] == "coaching":
            assert schema is None
        else:
            wanted = "modifications" if row.meta["kind"] == "plan_modification" else "workouts"
            assert schema is not None and wanted in schema["properties"]
