"""What can be checked in a coach's answer: the exercise it names, and the fault (or the good form, or the direction).

The exercise is read where an answer says it: before the dash of "squat - ...", else anywhere. What an answer says of
the exercise is compared with everything that the data set says of it: a whole description, else a label's words, else
the description that is nearest by its words. Who names several gets nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fieldtune.records import Example
from fieldtune.tasks.base import Baseline, Metric, Score
from fieldtune.tasks.qved.names import named_in, parts_of, words_of

METRICS = (
    Metric("exercise", "Exercise", "share", "higher", "The answer names the exercise that is shown, and no other."),
    Metric("fault", "Fault", "share", "higher", "It says what the label says of the form, and no other fault with it."),
    Metric("both", "Exercise and fault", "share", "higher", "Both of the above in one answer."),
    Metric(
        "order",
        "Fault that only the order tells",
        "share",
        "higher",
        "The fault, of films that shown backward have another label: without the order luck gives half of them.",
        rare=True,
    ),
)
NEAR = 0.6  # F1 of words from which an answer is taken for a description that it does not give word by word


def score_answer(example: Example, answer: str) -> Score:
    """Each metric as 0 or 1; None where the reference itself does not say it. checks: what is wrong, in words."""
    meta = example.meta
    exercises, faults = meta.get("exercises"), meta.get("faults")
    if not isinstance(exercises, list) or not isinstance(faults, dict):
        return Score({metric.name: None for metric in METRICS})
    problems = {
        "exercise": _problem(exercises_in(answer, exercises), exercises_in(example.answer, exercises), "exercise"),
        "fault": _problem(faults_in(answer, faults), faults_in(example.answer, faults), "fault"),
    }
    values = {name: None if problem is None else float(not problem) for name, problem in problems.items()}
    known = [value for value in values.values() if value is not None]
    values["both"] = min(known) if len(known) == len(problems) else None
    if meta.get("backward"):
        values["order"] = values["fault"]
    return Score(values, tuple(problem for problem in problems.values() if problem))


def _problem(given: set[str], wanted: set[str], what: str) -> str | None:
    """Empty if what is wanted is named and nothing else; None if nothing is wanted."""
    if not wanted:
        return None
    right = " and ".join(sorted(wanted))
    if given == wanted:
        return ""
    return f"names {' and '.join(sorted(given))}, it is {right}" if given else f"names no {what}, it is {right}"


def exercises_in(answer: str, exercises: Iterable[str]) -> set[str]:
    """The exercises that an answer says it is about."""
    heads = [head for head, _ in map(parts_of, answer.splitlines()) if head]
    return named_in("\n".join(heads), exercises) or named_in(answer, exercises)


def faults_in(answer: str, faults: Mapping[str, Sequence[str]]) -> set[str]:
    """The variations of an exercise that an answer describes; faults: each with its descriptions."""
    text = words_of("\n".join(body for _, body in map(parts_of, answer.splitlines())))
    whole = {fault for fault, descriptions in faults.items() if any(words_of(said) in text for said in descriptions)}
    return whole or named_in(text, faults) or _nearest(text, faults)


def _nearest(text: str, faults: Mapping[str, Sequence[str]]) -> set[str]:
    found = {fault: max((_f1(text, said) for said in said_of), default=0.0) for fault, said_of in faults.items()}
    best = max(found.values(), default=0.0)
    nearest = {fault for fault, value in found.items() if value == best}
    return nearest if best >= NEAR and len(nearest) == 1 else set()


def _f1(text: str, said: str) -> float:
    given, wanted = Counter(text.split()), Counter(words_of(said).split())
    return 2 * (given & wanted).total() / max(1, given.total() + wanted.total())


def majority(training: Iterable[Example]) -> Baseline | None:
    """Always the answer that the most training rows have; None without rows that can be scored."""
    answers = Counter(example.answer for example in training if isinstance(example.meta.get("exercises"), list))
    if not answers:
        return None
    usual = answers.most_common(1)[0][0]
    return Baseline(
        "Most common answer",
        f"Always what most training rows say: {usual.splitlines()[0]}",
        lambda example: score_answer(example, usual).values,
        usual,
    )
