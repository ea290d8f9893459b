"""A plan in words: as a page for the terminal, and as one line for the log of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fieldtune.config import Accelerator, Config
from fieldtune.data.encode import Encoded
from fieldtune.data.schedule import Windows
from fieldtune.models.loss import unwrapped
from fieldtune.models.outline import counts
from fieldtune.planning.advice import Remedy
from fieldtune.planning.machine import available
from fieldtune.planning.plan import Plan, step_memory
from fieldtune.planning.work import work_of
from fieldtune.progress import duration

WINDOWS_FOR_A_LINE = 8  # laid out to see what packing leaves


def page(plan: Plan, hour_price: float | None, remedies: Sequence[Remedy] = ()) -> str:
    """Everything the plan knows, for a terminal."""
    return "\n".join([*_lines(plan, hour_price), *_verdict(plan, remedies)]) + "\n"


def _lines(plan: Plan, hour_price: float | None) -> Iterator[str]:
    config, counted, work, memory = plan.config, plan.counts, plan.work, plan.memory
    yield f"{config.name}: {config.model.name}, adapter {config.adapter.kind.name}, {config.hardware.precision.name}"
    yield f"parameters         {counted.parameters:>15,}   trainable {counted.trainable:,}"
    if work.prepared:
        yield f"optimizer steps    {work.steps:>15,}   of {_rows(config)} rows; {work.rows:,} rows in the data set"
    else:
        blind = ", without pictures" if counted.seeing else ""
        assumed = f"rows of full length are assumed{blind}"
        yield f"optimizer steps            not known   the data set is not prepared; {assumed}"
    if work.prepared:
        saved = 1 - work.computed / work.tokens
        yield f"tokens of the rows {work.tokens:>15,}   computed after packing about {work.computed:,} ({-saved:+.0%})"
    yield "memory at the peak of training, on each device"
    for part, size in memory.parts.items():
        yield f"  {part:<17}{gb(size):>15}"
    yield f"  {'together':<17}{gb(memory.step):>15}"
    if memory.loading > memory.step:
        yield f"  {'before training':<17}{gb(memory.loading):>15}   the peak of this run"
    answering = plan.answering
    yield (
        f"evaluation         {gb(answering.peak):>15}   weights {gb(answering.weights)}, keys and values "
        f"{gb(answering.cache)} for {config.evaluation.batch_size} rows at a time"
    )
    if work.prepared:
        time = "not known" if plan.seconds is None else duration(plan.seconds)
        yield f"time               {time:>15}   {plan.rests_on}"
    if hour_price is not None and plan.seconds is not None and work.prepared:
        yield f"money              {plan.seconds / 3600 * hour_price:>15,.2f}   at {hour_price:g} an hour"


def _verdict(plan: Plan, remedies: Sequence[Remedy]) -> Iterator[str]:
    machine = plan.machine
    what = f"{gb(plan.memory.peak)} of the {gb(machine.memory)} {machine.says_memory}"
    if plan.fits:
        yield f"fits: {what}"
        return
    yield f"does not fit: {what}"
    if not remedies:
        yield "no override that was tried makes it fit; give a smaller model or more memory"
        return
    yield "what makes it fit, cheapest first"
    for remedy in remedies:
        yield f"  {' '.join(remedy.words)}   {gb(remedy.plan.memory.peak)}; {remedy.costs}"


def line(config: Config, model: Any, windows: Windows, val: Sequence[Encoded]) -> str:
    """The plan of a training that is about to begin, in one line; what goes wrong with it is said in the line."""
    try:
        return _line(config, model, windows, val)
    except Exception as error:  # a forecast must not stop what it is about
        return f"plan: not known ({type(error).__name__}: {error})".splitlines()[0]


def _line(config: Config, model: Any, windows: Windows, val: Sequence[Encoded]) -> str:
    counted = counts(model)
    work = work_of(config, windows, val[: config.trainer.eval_rows], tried=WINDOWS_FOR_A_LINE)
    memory = step_memory(config, unwrapped(model).config, counted, work)
    parts = ", ".join(f"{part} {gb(size)}" for part, size in memory.parts.items() if size >= 5e6)
    there = ""
    if config.hardware.accelerator is Accelerator.cpu and memory.step > available() + memory.parts["weights"]:
        there = f"; only {gb(available())} are available: see fieldtune plan"
    return (
        f"plan: {counted.parameters:,} parameters, {counted.trainable:,} trained; {work.steps:,} steps, "
        f"{work.tokens:,} tokens, about {work.computed:,} computed; memory about {gb(memory.step)} ({parts}){there}"
    )


def gb(size: float) -> str:
    """Bytes in GB (1e9) or MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _rows(config: Config) -> int:
    return config.trainer.micro_batch_size * config.trainer.accumulation
