"""`python -m throughput_parts.contender JOB.json`: one contender in a fresh process; its last line is one JSON.

A precision in place of a file name measures the machine's matrix rate instead.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldtune.config import Precision

from .job import SHORT, STEP_ROWS, Job, Setting, Timings, read_rows
from .machine import matrix_rate, memory

MICRO_BATCHES = (1, 2, 4, 8)  # rows a forward that a trial tries, in this order
TRIAL_TOKENS = 600  # a trial of a micro-batch sees rows of at least so many tokens
WORTH = 1.05  # twice the rows a forward are taken, and twice those tried, if they bring this much more speed

Contender = Callable[[Setting], Timings]


def main(argument: str) -> dict[str, Any]:
    """Do a job; returns what is printed."""
    if argument in [precision.value for precision in Precision]:
        return {"rates": matrix_rate(Precision(argument))}
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # out of memory, it is this one that goes
    job = Job.read(Path(argument))
    contender = _contender(job.contender)
    setting, before = _setting(job)
    ours = job.contender == "fieldtune"
    result = _tried(contender, setting, whole_steps=ours) if job.trial else _measured(contender, setting)
    peak = memory("VmHWM")
    return {**result, "peak_bytes": peak, "before_model_bytes": before, "rise_bytes": peak - before}


def _contender(name: str) -> Contender:
    if name == "fieldtune":
        from .ours import fieldtune

        return fieldtune
    if name == "loop":
        from .loop import loop

        return loop
    from . import trainers

    if name == "trl":
        import datasets  # noqa: F401  so that it counts to the state before the model is loaded
        from trl import SFTTrainer  # noqa: F401

        return trainers.trl
    return trainers.hf


def _setting(job: Job) -> tuple[Setting, int]:
    """What the contender is given, and the bytes of the process before the model was loaded."""
    import peft  # noqa: F401  like above
    from omegaconf import OmegaConf

    from fieldtune.loading import load
    from fieldtune.models.run_model import start_model
    from fieldtune.training.stage import use_threads

    config = load(OmegaConf.to_container(OmegaConf.load(job.config)))
    rows = read_rows(Path(job.rows))
    steps = [rows[first : first + STEP_ROWS] for first in range(1, 1 + job.steps * STEP_ROWS, STEP_ROWS)]
    use_threads(config.hardware)
    gc.collect()
    before = memory("VmRSS")
    model, tokenizer = start_model(config)
    return Setting(model, tokenizer, config, steps, rows[0], job.micro_batch, Path(job.folder)), before


def _measured(contender: Contender, setting: Setting) -> dict[str, Any]:
    from .ideal import work_of

    timings = contender(setting)
    return {
        "micro_batch": setting.micro_batch,
        "seconds": timings.seconds,
        "losses": timings.losses,
        "computed_tokens": timings.computed_tokens,
        "real_tokens": [sum(len(row.ids) for row in step) for step in setting.steps],
        "supervised_tokens": [sum(row.supervised for row in step) for step in setting.steps],
        "work": work_of(setting.model).to_json(),
    }


def _tried(contender: Contender, setting: Setting, *, whole_steps: bool) -> dict[str, Any]:
    """The micro-batch that is doubled no more, and the real tokens a second of those that were tried.

    Tried on as many rows of the first step as it takes to tell them apart, or on all of them (`whole_steps`), for a
    contender whose speed depends on what the rows of a step have in common.
    """
    rows = setting.steps[0]
    row = setting.warm_up
    first = min(int(row.trained.argmax()), len(row.ids) - 1)
    cut = slice(max(0, first + 1 - SHORT), first + 1)
    short = replace(row, ids=row.ids[cut], trained=row.trained[cut])
    speeds: dict[int, float] = {}
    chosen = MICRO_BATCHES[0]
    for micro_batch in MICRO_BATCHES:
        count = STEP_ROWS if whole_steps else micro_batch
        while count < STEP_ROWS and sum(len(row.ids) for row in rows[:count]) < TRIAL_TOKENS:
            count *= 2
        part = replace(setting, steps=[rows[:count]], warm_up=short, micro_batch=micro_batch)
        seconds = contender(part).seconds[0]
        speeds[micro_batch] = sum(len(row.ids) for row in rows[:count]) / seconds
        if micro_batch > chosen and speeds[micro_batch] < WORTH * speeds[chosen]:
            break
        chosen = micro_batch
    return {"trial": speeds, "micro_batch": chosen}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for noisy in ("lightning.pytorch", "pytorch_lightning", "transformers", "trl"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    print("\n" + json.dumps(main(sys.argv[1])))
