"""The order of the measurements: trials, a round of everybody, memory at equal rows, further rounds of the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from fieldtune.config import Precision, to_yaml
from fieldtune.data.encode import Encoded

from . import processes
from .job import STEP_ROWS, Job, write_rows
from .workloads import Case, compose, encoded

OURS, LOOP = "fieldtune", "loop"
CONTENDERS = (OURS, "trl", "hf", LOOP)
FAR_BEHIND = 0.8  # a peer below this share of the best peer's speed

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured. micro_batch: null: each contender's best, found by a trial."""

    contenders: Sequence[str]
    rounds: int
    minutes: float  # no further round begins after so many
    micro_batch: int | None
    threads: int | None
    precision: Precision
    instruction_file: Path | None


@dataclass(slots=True)
class Measured:
    """What was found for a case. runs: contender -> what its processes printed, a round each."""

    case: Case
    rows: list[Encoded]  # all of the workload
    configs: dict[str, Path]
    folder: Path
    micro_batches: dict[str, int] = field(default_factory=dict)
    trials: dict[str, dict[str, float]] = field(default_factory=dict)
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    # With the whole step in one micro-batch: peak bytes, and whether that is all (no: it did not fit into memory).
    at_step_rows: dict[str, tuple[int, bool]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)  # peers that come last
    errors: dict[str, str] = field(default_factory=dict)
    matrix_rate: float = 0.0  # floating-point operations a second, measured beside this case

    @property
    def steps(self) -> list[list[Encoded]]:
        """The rows of each timed step; the first row of all is the warm-up's."""
        ends = range(1, 1 + self.case.steps * STEP_ROWS, STEP_ROWS)
        return [self.rows[first : first + STEP_ROWS] for first in ends]

    def speeds(self, contender: str) -> list[float]:
        """Real tokens a second of every timed step of every round."""
        return [
            tokens / seconds
            for run in self.runs.get(contender, [])
            for tokens, seconds in zip(run["real_tokens"], run["seconds"], strict=True)
        ]

    @property
    def best_peer(self) -> str | None:
        """The fastest of the others."""
        speeds = {name: median(found) for name in self.runs if name != OURS and (found := self.speeds(name))}
        return max(speeds, key=lambda name: speeds[name]) if speeds else None

    def is_far_behind(self, peer: str) -> bool:
        """Whether a peer was so much slower than the best one that it need not be timed with care."""
        best = self.best_peer
        if best is None or peer not in self.runs:
            return False
        return median(self.speeds(peer)) < FAR_BEHIND * median(self.speeds(best))

    def job(self, contender: str, micro_batch: int, *, steps: int | None = None, trial: bool = False) -> Job:
        """One process's work on this case."""
        return Job(
            contender=contender,
            config=str(self.configs[OURS if contender == OURS else "peers"]),
            rows=str(self.folder / "rows.npz"),
            folder=str(self.folder),
            steps=steps or self.case.steps,
            micro_batch=micro_batch,
            trial=trial,
        )


def prepare(case: Case, options: Options, folder: Path) -> Measured:
    """A case's rows and configurations on disk, where the processes find them."""
    from .ours import OVERRIDES

    folder.mkdir()
    configs = {}
    for name, words in ((OURS, OVERRIDES), ("peers", ())):
        config = compose(case, options.threads, options.precision, *words)
        configs[name] = folder / f"{name}.yaml"
        configs[name].write_text(to_yaml(config), encoding="utf-8")
    measured = Measured(case, encoded(case, config, options.instruction_file), configs, folder)
    write_rows(folder / "rows.npz", measured.rows[: 1 + case.steps * STEP_ROWS])
    return measured


def first_round(measured: Measured, options: Options, first: Measured | None, say: Say) -> None:
    """Each contender at its best micro-batch, and what it is compared by at equal rows.

    first: the workload's case that came before. Its micro-batches hold here too, the rows being as long; a peer that
    was far behind in it waits until everything else is done.
    """
    measured.matrix_rate = max(processes.measure_matrix_rate(options.precision).values(), default=0.0)
    say(f"{options.precision.value} matrix products: {measured.matrix_rate / 1e9:.0f} GFLOP/s")
    if first is not None:
        measured.micro_batches = dict(first.micro_batches)
        measured.waiting = [name for name in options.contenders if name != OURS and first.is_far_behind(name)]
    for contender in options.contenders:
        if contender not in measured.micro_batches:
            _try(measured, contender, options, say)
    for contender in options.contenders:
        if contender not in measured.waiting:
            _measure(measured, contender, say)
    for compared in (OURS, measured.best_peer):
        if compared in measured.runs:
            _measure_at_step_rows(measured, compared, say)


def further_rounds(cases: Sequence[Measured], options: Options, started: float, say: Say) -> None:
    """Ours and the best peer of each case again, interleaved; then the peers that waited; all while there is time."""
    cases = sorted(cases, key=lambda measured: measured.case.steps)  # first those that have the fewest figures yet
    again = [
        (measured, contender)
        for _ in range(2, options.rounds + 1)
        for measured in cases
        for contender in (OURS, measured.best_peer)
        if contender in measured.runs
    ]
    waited = [(measured, contender) for measured in cases for contender in measured.waiting]
    for number, (measured, contender) in enumerate([*again, *waited]):
        if time.monotonic() - started > 60 * options.minutes:
            left = len(again) + len(waited) - number
            say(f"{options.minutes:g} minutes are over; {left} measurements that would have come again are left out")
            break
        _measure(measured, contender, say)
    for measured in cases:
        best = measured.best_peer
        if best in measured.runs and best not in measured.at_step_rows:  # another one turned out to be the best
            _measure_at_step_rows(measured, best, say)


def _measure_at_step_rows(measured: Measured, contender: str, say: Say) -> None:
    """The peak with the whole step in one micro-batch; what was seen of it if it does not fit into memory."""
    if measured.micro_batches[contender] == STEP_ROWS:
        peak, whole = measured.runs[contender][0]["peak_bytes"], True
    else:
        result = processes.run(measured.job(contender, STEP_ROWS, steps=1), measured.folder)
        whole = "error" not in result
        peak = result["peak_bytes"] if whole else result["peak_seen"]
        say(f"{contender}, {STEP_ROWS} rows a forward: {peak / 1e9:.2f} GB" + ("" if whole else f", {result['error']}"))
    measured.at_step_rows[contender] = (peak, whole)


def _try(measured: Measured, contender: str, options: Options, say: Say) -> None:
    if options.micro_batch is not None:
        measured.micro_batches[contender] = options.micro_batch
        return
    result = _run(measured, measured.job(contender, 1, steps=1, trial=True), say)
    if not result:
        return
    measured.micro_batches[contender] = result["micro_batch"]
    measured.trials[contender] = result["trial"]
    tried = ", ".join(f"{rows}: {speed:.0f}" for rows, speed in result["trial"].items())
    say(f"{contender}, tokens/s by rows a forward: {tried}")


def _measure(measured: Measured, contender: str, say: Say) -> None:
    micro_batch = measured.micro_batches.get(contender)
    if micro_batch is None:  # its trial failed
        return
    result = _run(measured, measured.job(contender, micro_batch), say)
    if not result:
        return
    measured.runs.setdefault(contender, []).append(result)
    speed = sum(result["real_tokens"]) / sum(result["seconds"])
    say(f"{contender}, {micro_batch} rows a forward: {speed:.1f} tokens/s, {result['peak_bytes'] / 1e9:.2f} GB")


def _run(measured: Measured, job: Job, say: Say) -> dict[str, Any]:
    """One process; an error is said, kept, and gives {}."""
    result = processes.run(job, measured.folder)
    if "error" not in result:
        return result
    measured.errors[job.contender] = (
        f"{'trial' if job.trial else f'{job.micro_batch} rows a forward'}: {result['error']}"
    )
    say(f"{job.contender} failed in the {measured.errors[job.contender]}\n{result['output']}")
    return {}
