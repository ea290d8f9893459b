"""The baseline: always the decision that is the most common one among the training rows, whatever the athlete says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from fieldtune.records import Example
from fieldtune.sources.json_text import strict_json
from fieldtune.tasks.base import Baseline
from fieldtune.tasks.fitness.schema import PlanModification
from fieldtune.tasks.fitness.scoring import context_of, facts_of
from fieldtune.tasks.fitness.validation import parse_part

Decision = Mapping[str, tuple[str, ...]]


def majority(training: Iterable[Example]) -> Baseline | None:
    """For each of action, workout, decision and direction its own most common value; None without plan changes."""
    counts: dict[str, Counter[tuple[str, ...]]] = {}
    for example in training:
        for name, value in decision_of(example).items():
            counts.setdefault(name, Counter())[value] += 1
    if not counts:
        return None
    usual = {name: counter.most_common(1)[0][0] for name, counter in counts.items()}

    def score(example: Example) -> dict[str, float | None]:
        return {name: float(value == usual[name]) for name, value in decision_of(example).items()}

    said = "; ".join(f"{name} {' '.join(value) or 'none'}" for name, value in usual.items())
    return Baseline("Most common decision", f"Always what most training rows say: {said}.", score)


def decision_of(example: Example) -> Decision:
    """Action, workout, both, and direction of the reference answer to a plan change; empty for other rows."""
    told = context_of(example) if example.meta.get("kind") == "plan_modification" else None
    if told is None:
        return {}
    answer, _ = parse_part(PlanModification, strict_json(example.answer))
    if answer is None:
        return {}
    action, workouts, direction, _ = facts_of(answer, told)
    return {"action": (action,), "workout": workouts, "decision": (action, *workouts), "direction": (direction,)}
