"""Reading an evaluation folder for its report: metrics.json and predictions.jsonl, checked and typed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fieldtune.errors import UserError

UNITS = ("share", "nats", "perplexity", "ratio", "tokens")
BETTER = ("higher", "lower", "neither")
SYSTEMS = ("base", "tuned")

T = TypeVar("T")
Curves = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95% interval; low and high are None when there is none, n when it is not known."""

    value: float
    low: float | None
    high: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric of both systems; what was not measured is None. difference is tuned minus base.

    baseline: of a rule that looks at no prompt; over_baseline is tuned minus that.
    """

    name: str
    title: str
    unit: str
    better: str
    about: str
    base: Estimate | None
    tuned: Estimate | None
    difference: Estimate | None
    baseline: Estimate | None = None
    over_baseline: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One row of a breakdown; values: metric name, then system, to a mean."""

    group: str
    n: int
    values: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The metrics by the values of one fact of the rows."""

    title: str
    groups: Sequence[Group]


@dataclass(frozen=True, slots=True)
class ShownFile:
    """A picture (`image`) or film (`video`) of a row. frames, seconds: those of a film that the model chose."""

    type: str
    path: str
    frames: Sequence[int] = ()
    seconds: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """One evaluated row; answers, scores and checks are keyed by system."""

    id: str
    prompt: str
    reference: str
    meta: Mapping[str, Any]
    answers: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float | None]]
    checks: Mapping[str, Sequence[str]]
    media: Sequence[ShownFile] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """All that the report shows."""

    title: str
    run: str
    created: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    systems: Sequence[str]
    metrics: Sequence[MetricResult]
    constrained: Sequence[MetricResult]  # of answers held to their schema, if they were measured beside free ones
    baseline: str  # what its rule says
    packing: Mapping[str, Any]  # of the training, see `training.packing_facts`
    breakdowns: Sequence[Breakdown]
    labels: Mapping[str, Any]  # of rows that ask for a label, see `LabelTest.summary`; read by `label_report`
    curves: Curves
    config: str
    times: Mapping[str, float | None]
    notes: Sequence[str]
    versions: Mapping[str, Any]
    predictions: Sequence[Prediction]


def read_results(folder: Path) -> Results:
    """Both files of an evaluation folder; `UserError` names the first thing that is missing or wrong."""
    path = folder / "metrics.json"
    raw = _object(_decode(_bytes(path), str(path)), str(path))
    where = str(path)
    metrics, constrained = (
        [_metric(item, f"{where}: {name}[{i}]") for i, item in enumerate(_get(raw, name, list, where, default))]
        for name, default in (("metrics", None), ("constrained", []))
    )
    systems = [str(name) for name in _get(raw, "systems", list, where)]
    if "tuned" not in systems or not set(systems) <= set(SYSTEMS):
        raise _wrong(where, f"'systems' is {systems}; allowed: ['tuned'] or ['base', 'tuned']")
    return Results(
        title=_get(raw, "title", str, where),
        run=_get(raw, "run", str, where),
        created=_get(raw, "created", str, where),
        model=_get(raw, "model", dict, where),
        data=_get(raw, "data", dict, where),
        systems=[name for name in SYSTEMS if name in systems],
        metrics=metrics,
        constrained=constrained,
        baseline=_get(_get(raw, "baseline", dict, where, {}), "about", str, where, ""),
        packing=_get(raw, "packing", dict, where, {}),
        breakdowns=[
            _breakdown(item, f"{where}: breakdowns[{i}]")
            for i, item in enumerate(_get(raw, "breakdowns", list, where, []))
        ],
        labels=_get(raw, "labels", dict, where, {}),
        curves=_curves(_get(raw, "curves", dict, where, {}), where),
        config=_get(raw, "config", str, where, ""),
        times=_numbers(_get(raw, "times", dict, where, {})),
        notes=[str(note) for note in _get(raw, "notes", list, where, [])],
        versions=_get(raw, "versions", dict, where, {}),
        predictions=_predictions(folder / "predictions.jsonl"),
    )


def number(value: Any) -> float | None:
    """A finite number, or None for all else (null, NaN, a text)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _wrong(where: str, what: str) -> UserError:
    return UserError(f"{where}: {what}; run evaluate.py again to write it anew")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; give the folder of an evaluation, written by evaluate.py") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a folder that you may read") from None


def _decode(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise _wrong(where, f"not JSON ({error.msg} at line {error.lineno})") from None
    except UnicodeDecodeError:
        raise _wrong(where, "not JSON (not UTF-8 text)") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, f"must be a JSON object, got {type(value).__name__}")
    return value


def _get(raw: Mapping[str, Any], key: str, kind: type[T], where: str, default: T | None = None) -> T:
    value = raw.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        found = f"is {type(value).__name__}" if key in raw else "is missing"
        raise _wrong(where, f"'{key}' {found}, must be of type {kind.__name__}")
    return value


def _numbers(raw: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(key): number(value) for key, value in raw.items()}


def _metric(raw: Any, where: str) -> MetricResult:
    raw = _object(raw, where)
    unit, better = _get(raw, "unit", str, where), _get(raw, "better", str, where)
    if unit not in UNITS:
        raise _wrong(where, f"'unit' is {unit!r}; allowed: {', '.join(UNITS)}")
    if better not in BETTER:
        raise _wrong(where, f"'better' is {better!r}; allowed: {', '.join(BETTER)}")
    name = _get(raw, "name", str, where)
    return MetricResult(
        name=name,
        title=_get(raw, "title", str, where, name),
        unit=unit,
        better=better,
        about=_get(raw, "about", str, where, ""),
        base=_estimate(raw.get("base"), f"{where}.base"),
        tuned=_estimate(raw.get("tuned"), f"{where}.tuned"),
        difference=_estimate(raw.get("difference"), f"{where}.difference"),
        baseline=_estimate(raw.get("baseline"), f"{where}.baseline"),
        over_baseline=_estimate(raw.get("over_baseline"), f"{where}.over_baseline"),
    )


def _estimate(raw: Any, where: str) -> Estimate | None:
    if raw is None:
        return None
    raw = _object(raw, where)
    value, low, high = (number(raw.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return None
    if low is None or high is None:
        low = high = None
    n = raw.get("n")
    return Estimate(value, low, high, n if isinstance(n, int) else None)


def _breakdown(raw: Any, where: str) -> Breakdown:
    raw = _object(raw, where)
    groups = []
    for index, item in enumerate(_get(raw, "groups", list, where)):
        place = f"{where}.groups[{index}]"
        item = _object(item, place)
        values = _get(item, "values", dict, place)
        groups.append(
            Group(
                str(item.get("group", "")),
                _get(item, "n", int, place),
                {str(name): _numbers(_object(pair, f"{place}.values")) for name, pair in values.items()},
            )
        )
    return Breakdown(_get(raw, "title", str, where), groups)


def _curves(raw: Mapping[str, Any], where: str) -> dict[str, list[tuple[float, float]]]:
    curves = {}
    for name, points in raw.items():
        try:
            curves[str(name)] = [(float(x), math.nan if y is None else float(y)) for x, y in points]
        except (TypeError, ValueError):
            raise _wrong(where, f"curves[{name!r}] must be a list of [step, value]") from None
    return curves


def _predictions(path: Path) -> list[Prediction]:
    found = []
    for line, content in enumerate(_bytes(path).split(b"\n"), 1):
        if content.strip():
            where = f"{path}:{line}"
            found.append(_prediction(_object(_decode(content, where), where), where))
    return found


def _prediction(raw: Mapping[str, Any], where: str) -> Prediction:
    answers = _get(raw, "answers", dict, where)
    scores = _get(raw, "scores", dict, where, {})
    checks = _get(raw, "checks", dict, where, {})
    return Prediction(
        id=str(raw.get("id", "")),
        prompt=_get(raw, "prompt", str, where),
        reference=_get(raw, "reference", str, where, ""),
        meta=_get(raw, "meta", dict, where, {}),
        answers={str(system): str(text) for system, text in answers.items() if text is not None},
        scores={str(system): _numbers(_object(values, where)) for system, values in scores.items()},
        checks={str(system): [str(check) for check in _get(checks, system, list, where, [])] for system in checks},
        media=[_shown(_object(item, where), where) for item in _get(raw, "media", list, where, [])],
    )


def _shown(raw: Mapping[str, Any], where: str) -> ShownFile:
    frames, seconds = (_get(raw, name, list, where, []) for name in ("frames", "seconds"))
    right = all(isinstance(item, int) for item in frames) and all(number(item) is not None for item in seconds)
    if not right or len(frames) != len(seconds):
        raise _wrong(where, "'frames' and 'seconds' of 'media' must be numbers, one of each for a frame")
    return ShownFile(_get(raw, "type", str, where), _get(raw, "path", str, where), frames, seconds)
