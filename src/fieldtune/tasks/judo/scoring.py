"""What can be checked in an answer: the technique's name; whether something is wrong, and what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from fieldtune.records import Example
from fieldtune.sources.json_text import NotJson, strict_json
from fieldtune.tasks.base import Baseline, Metric, Score
from fieldtune.tasks.judo.rows import error_key
from fieldtune.tasks.judo.vocabulary import key

METRICS = (
    Metric("technique", "Technique", "share", "higher", "The answer is the technique's name, and nothing else."),
    Metric("error_found", "Error detected", "share", "higher", "Whether something is wrong is said right."),
    Metric(
        "error_types", "Kinds of error (F1)", "share", "higher", "F1 of the kinds of error; 1 if none is due or said."
    ),
)


def score_answer(example: Example, answer: str) -> Score:
    """The values that apply to the row's question; none for rows of a mixture."""
    values: dict[str, float | None] = {metric.name: None for metric in METRICS}
    kind = example.meta.get("kind")
    if kind == "technique":
        technique = str(example.meta["technique"])
        values["technique"] = float(key(answer) == key(technique))
        return Score(values, () if values["technique"] else (f"says {answer[:60]!r}, it is {technique}",))
    if kind != "errors":
        return Score(values)
    wanted, said = set(example.meta["error_types"]), _error_types(answer)
    if said is None:
        return Score(values | {"error_found": 0.0, "error_types": 0.0}, ("not the JSON that was asked for",))
    f1 = 2 * len(wanted & said) / (len(wanted) + len(said)) if wanted or said else 1.0
    checks = [f"does not name {name}" for name in sorted(wanted - said)]
    checks += [f"names {name}, which is not there" for name in sorted(said - wanted)]
    return Score(values | {"error_found": float(bool(wanted) == bool(said)), "error_types": f1}, tuple(checks))


def _error_types(answer: str) -> set[str] | None:
    """The kinds of error that an answer names; None if it is not the JSON that was asked for."""
    try:
        raw = strict_json(answer)
    except NotJson:
        return None
    errors = raw.get("errors") if isinstance(raw, Mapping) else None
    if not isinstance(errors, list):
        return None
    names = [item.get("error_type") if isinstance(item, Mapping) else None for item in errors]
    return {error_key(name) for name in names if isinstance(name, str)} if all(names) else None


def majority(training: Iterable[Example]) -> Baseline | None:
    """Always the technique of most training frames, and of errors what most described frames have."""
    techniques, faulty = Counter[str](), Counter[bool]()
    for example in training:
        if example.meta.get("kind") == "technique":
            techniques[str(example.meta["technique"])] += 1
        elif example.meta.get("kind") == "errors":
            faulty[bool(example.meta["error_types"])] += 1
    if not techniques:
        return None
    usual = techniques.most_common(1)[0][0]
    wrong = faulty.most_common(1)[0][0] if faulty else None

    def score(example: Example) -> dict[str, float | None]:
        if example.meta.get("kind") == "technique":
            return {"technique": float(example.meta["technique"] == usual)}
        if example.meta.get("kind") == "errors" and wrong is not None:
            return {"error_found": float(bool(example.meta["error_types"]) == wrong)}
        return {}

    errors = "" if wrong is None else f", and that something is {'wrong' if wrong else 'never wrong'}"
    return Baseline("Most common technique", f"Always {usual}{errors}.", score)
