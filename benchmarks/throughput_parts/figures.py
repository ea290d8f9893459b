"""What comes of the measurements: each contender's figures, the ratios, the shares of the ideal, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from .ideal import Work, least
from .job import STEP_ROWS
from .measure import LOOP, OURS, Measured


def figures(measured: Measured, rate: float) -> dict[str, Any]:
    """A case's part of the JSON file. rate: the machine's floating-point operations a second."""
    peer = measured.best_peer
    return {
        "rows": _rows(measured),
        "contenders": {name: _contender(measured, name) for name in measured.runs},
        "trials": measured.trials,
        "errors": measured.errors,
        "left_out": [name for name in measured.waiting if name not in measured.runs],  # far behind, and no time
        "best_peer": peer,
        "speed_ratio": _ratio(_speed(measured, OURS), _speed(measured, peer)),
        "memory_ratio": _ratio(_peak_at_step_rows(measured, OURS), _peak_at_step_rows(measured, peer)),
        "memory_ratio_tuned": _ratio(_peak(measured, OURS), _peak(measured, peer)),
        "loss_difference": _loss_difference(measured, OURS),
        "limit_share": _limit_share(measured, rate),
        "computed_share": _computed_share(measured),
        "matrix_rate_beside": measured.matrix_rate,
    }


def _rows(measured: Measured) -> dict[str, Any]:
    lengths = [len(row.ids) for row in measured.rows]
    steps = [least(step) for step in measured.steps]
    timed = [row for step in measured.steps for row in step]
    return {
        "rows": len(lengths),
        "mean_tokens": mean(lengths),
        "supervised_share": sum(row.supervised for row in measured.rows) / sum(lengths),
        "timed_steps": len(steps),
        "timed_tokens": sum(len(row.ids) for row in timed),
        "least_tokens": sum(step.tokens for step in steps),
    }


def _contender(measured: Measured, name: str) -> dict[str, Any]:
    runs = measured.runs[name]
    peak, whole = measured.at_step_rows.get(name, (None, True))
    return {
        "micro_batch": measured.micro_batches[name],
        "rounds": len(runs),
        "real_tokens_per_second": _spread(measured.speeds(name)),
        "supervised_tokens_per_second": _spread(
            [n / s for run in runs for n, s in zip(run["supervised_tokens"], run["seconds"], strict=True)]
        ),
        "seconds_per_step": _spread([seconds for run in runs for seconds in run["seconds"]]),
        "peak_bytes": _spread([run["peak_bytes"] for run in runs]),
        "rise_bytes": _spread([run["rise_bytes"] for run in runs]),
        "peak_bytes_at_8_rows": peak,
        "did_not_fit_at_8_rows": not whole,  # then the peak is what was seen before the end, and more was needed
        "computed_tokens": sum(runs[0]["computed_tokens"]),
        "losses": runs[0]["losses"],
        "loss_difference": _loss_difference(measured, name),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs is not None else None


def _speed(measured: Measured, name: str | None) -> float | None:
    return median(measured.speeds(name)) if name in measured.runs else None


def _peak(measured: Measured, name: str | None) -> float | None:
    return float(median(run["peak_bytes"] for run in measured.runs[name])) if name in measured.runs else None


def _peak_at_step_rows(measured: Measured, name: str | None) -> float | None:
    return measured.at_step_rows[name][0] if name in measured.at_step_rows else None


def _loss_difference(measured: Measured, name: str) -> float | None:
    """Against the plain loop, relative: the larger of the first step's loss and of the mean over the steps."""
    if name not in measured.runs or LOOP not in measured.runs:
        return None
    own, plain = (measured.runs[each][0]["losses"] for each in (name, LOOP))
    return float(max(abs(own[0] - plain[0]) / plain[0], abs(mean(own) - mean(plain)) / mean(plain)))


def _limit_share(measured: Measured, rate: float) -> float | None:
    """The time that the ideal's matrix products take at the machine's rate, over ours; the median of the steps."""
    runs = measured.runs.get(OURS, [])
    if not runs or not rate:
        return None
    work = Work(**runs[0]["work"])
    ideal = [work.flops(least(step)) / rate for step in measured.steps]
    return median(best / seconds for run in runs for best, seconds in zip(ideal, run["seconds"], strict=True))


def _computed_share(measured: Measured) -> float | None:
    """Tokens that we put through the layers, over the distinct prefixes of the same steps."""
    runs = measured.runs.get(OURS, [])
    least_tokens = sum(least(step).tokens for step in measured.steps)
    return sum(runs[0]["computed_tokens"]) / least_tokens if runs else None


def table(results: dict[str, dict[str, Any]]) -> str:
    """The figures as text, a block a case."""
    lines = []
    for case, found in results.items():
        rows = found["rows"]
        lines.append(
            f"\n{case}: {rows['rows']:,} rows, {rows['mean_tokens']:.0f} tokens each, "
            f"{rows['supervised_share']:.1%} supervised; timed {rows['timed_steps']} steps of {STEP_ROWS} rows, "
            f"{rows['least_tokens'] / rows['timed_tokens']:.1%} of their tokens are distinct prefixes"
        )
        lines.append(
            f"  {'':<10}{'rows a forward':>15}{'real tokens/s (spread)':>26}{'supervised/s':>14}{'s/step':>9}"
            f"{'peak GB':>9}{'at 8 rows':>11}{'loss diff.':>12}"
        )
        lines.extend(_line(name, one) for name, one in found["contenders"].items())
        lines.extend(f"  {name:<10} failed: {reason}" for name, reason in found["errors"].items())
        lines.extend(f"  {name:<10} left out: far behind before, and no time" for name in found["left_out"])
        lines.append(
            f"  against {found['best_peer'] or 'nobody'}: speed x{_number(found['speed_ratio'])}, memory at 8 rows "
            f"x{_number(found['memory_ratio'])}, memory tuned x{_number(found['memory_ratio_tuned'])}; share of the "
            f"limit {_number(found['limit_share'])}, computed tokens x{_number(found['computed_share'])} of the least"
        )
    return "\n".join(lines)


def _line(name: str, one: dict[str, Any]) -> str:
    speed = one["real_tokens_per_second"]
    spread = f"{speed['median']:.1f} ({speed['min']:.1f}-{speed['max']:.1f})"
    at_8, difference = one["peak_bytes_at_8_rows"], one["loss_difference"]
    more = ">" if one["did_not_fit_at_8_rows"] else ""
    return (
        f"  {name:<10}{one['micro_batch']:>15}{spread:>26}{one['supervised_tokens_per_second']['median']:>14.1f}"
        f"{one['seconds_per_step']['median']:>9.2f}{one['peak_bytes']['median'] / 1e9:>9.2f}"
        f"{'-' if at_8 is None else more + format(at_8 / 1e9, '.2f'):>11}"
        f"{'-' if difference is None else format(difference, '.1e'):>12}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
