"""The evaluate stage: a finished run and held-out rows in; predictions, metrics with intervals and a report out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fieldtune import datasets, tasks
from fieldtune.config import Config, to_yaml
from fieldtune.data.load import Rows, load_split
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.evaluation.compare import breakdowns, compare, score_rows
from fieldtune.evaluation.metrics import run_hashes
from fieldtune.evaluation.predict import Predictions, predict
from fieldtune.evaluation.report import write_report
from fieldtune.models.generate import Sampling
from fieldtune.models.run_model import RunModel
from fieldtune.records import read_examples, read_jsonl, write_jsonl
from fieldtune.runs import Run, open_run, write_json
from fieldtune.tracking import Tracker

log = logging.getLogger("fieldtune")

PREDICTIONS, METRICS, REPORT = "predictions.jsonl", "metrics.json", "report.html"
SHOWN = 3  # answers printed at the end
TRAINING_ROWS_COMPARED = 20_000  # of the training split, for the overlap with training texts


def evaluate(config: Config, run_dir: Path, tracker: Tracker) -> Mapping[str, Any]:
    """Evaluate the run that the configuration names; returns the facts for the manifest."""
    started = time.monotonic()
    assert config.run is not None  # `adopt_run` put it there
    run = open_run(Path(config.run))
    dataset = datasets.of_run(config, run)
    dataset.verify()
    tracker.uses(f"{config.name}-model", "model", {"run": str(run.folder)})
    tracker.uses(f"{config.data.task}-data", "dataset", {"fingerprint": dataset.fingerprint})
    models = RunModel(run, config)
    rows = load_split(
        dataset, config.evaluation.split, models.encoder, config.model.context_length, rows=config.evaluation.rows
    )
    if not rows.encoded:
        raise UserError(f"the {config.evaluation.split} split is empty; give evaluation.split= or another data.split=")
    predictions = _predictions(config, models, rows)
    task = tasks.get(config.data.task)
    known = run_hashes(
        example.answer
        for number, example in enumerate(read_examples(dataset.split("train")))
        if number < TRAINING_ROWS_COMPARED
    )
    scored = score_rows(task, rows.examples, predictions, known)
    metrics = compare(task, predictions, scored, config.evaluation.bootstrap, config.seed)
    summary = {
        "title": config.name,
        "run": str(run.folder),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "model": run.manifest()["model"],
        "data": _data_facts(config, dataset, rows),
        "systems": list(predictions),
        "metrics": metrics,
        "breakdowns": breakdowns(task, rows.examples, scored),
        "curves": _curves(run),
        "config": to_yaml(config),
        "times": {
            "train_seconds": run.manifest()["seconds"],
            "evaluate_seconds": round(time.monotonic() - started, 1),
        },
        "notes": _notes(config, dataset, rows),
    }
    write_jsonl(run_dir / PREDICTIONS, _lines(rows, predictions, scored))
    write_json(run_dir / METRICS, summary)
    report = write_report(run_dir)
    _tell(rows, predictions, metrics, report)
    _track(tracker, config, rows, predictions, run_dir)
    return {
        "evaluated_run": str(run.folder),
        "data": summary["data"],
        "model": summary["model"],
        "metrics": _flat(metrics),
        "left_out": rows.left_out,
        "files": {PREDICTIONS: "one object a row", METRICS: "metrics with intervals", REPORT: "the report"},
    }


def _predictions(config: Config, models: RunModel, rows: Rows) -> dict[str, Predictions]:
    settings = config.evaluation
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_k, config.seed)
    found = {}
    for name in ("base", "tuned") if settings.base else ("tuned",):
        with models.system(name) as model:
            found[name] = predict(
                name, model, models.encoder, rows, settings.batch_size, config.trainer.packing, sampling
            )
    return found


def _data_facts(config: Config, dataset: Dataset, rows: Rows) -> dict[str, Any]:
    return {
        "task": config.data.task,
        "fingerprint": dataset.fingerprint,
        "rows": dataset.rows,
        "split": config.evaluation.split,
        "evaluated": len(rows.examples),
        "near_duplicates_straddling": dataset.manifest["near_duplicates"]["straddling"],
    }


def _notes(config: Config, dataset: Dataset, rows: Rows) -> list[str]:
    notes = []
    if config.evaluation.split == "train":
        notes.append("These are training rows: the figures say how well they were learned, not how well they transfer.")
    if rows.left_out:
        notes.append(f"{len(rows.left_out)} rows were left out; the manifest lists them.")
    if dataset.rows["train"] > TRAINING_ROWS_COMPARED:
        notes.append(f"Overlap was looked for in the first {TRAINING_ROWS_COMPARED:,} training rows.")
    return notes


def _curves(run: Run) -> dict[str, list[list[float]]]:
    lines = list(read_jsonl(run.folder / "metrics.jsonl"))
    names = ("train/loss", "val/loss")
    return {name: [[line["step"], line[name]] for line in lines if name in line] for name in names}


def _lines(
    rows: Rows, predictions: Mapping[str, Predictions], scored: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    return [
        {
            "id": example.id,
            "prompt": example.prompt_text,
            "reference": example.answer,
            "meta": example.meta,
            "answers": {name: predictions[name].answers[number].text for name in predictions},
            "scores": {name: dict(scored[name][number].values) for name in predictions},
            "checks": {name: list(scored[name][number].checks) for name in predictions},
        }
        for number, example in enumerate(rows.examples)
    ]


def _flat(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        f"{system}/{metric['name']}": metric[system]["value"]
        for metric in metrics
        for system in ("base", "tuned")
        if metric.get(system)
    }


def _tell(
    rows: Rows, predictions: Mapping[str, Predictions], metrics: Sequence[Mapping[str, Any]], report: Path
) -> None:
    for number, example in enumerate(rows.examples[:SHOWN]):
        log.info("%s\n%s", "-" * 80, example.prompt_text)
        for name in predictions:
            log.info("\n[%s]\n%s", name, predictions[name].answers[number].text)
    log.info("-" * 80)
    log.info("%-34s %26s %26s", f"{len(rows.examples)} held-out rows, 95 % intervals", *_columns(predictions))
    for metric in metrics:
        cells = [_cell(metric[name]) if metric.get(name) else "" for name in ("base", "tuned")]
        log.info("%-34s %26s %26s", metric["title"], *cells)
    log.info("report: %s", report)


def _columns(predictions: Mapping[str, Predictions]) -> tuple[str, str]:
    return ("base" if "base" in predictions else "", "tuned")


def _cell(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3g} ({interval['low']:.3g} to {interval['high']:.3g})"


def _track(tracker: Tracker, config: Config, rows: Rows, predictions: Mapping[str, Predictions], run_dir: Path) -> None:
    shown = range(min(len(rows.examples), 100))
    columns = ("id", "prompt", "reference", *predictions)
    table = [
        (
            rows.examples[number].id,
            rows.examples[number].prompt_text,
            rows.examples[number].answer,
            *(predictions[name].answers[number].text for name in predictions),
        )
        for number in shown
    ]
    tracker.table("predictions", columns, table)
    files = [run_dir / name for name in (PREDICTIONS, METRICS, REPORT)]
    tracker.artifact(f"{config.name}-evaluation", "evaluation", files, {"rows": len(rows.examples)})
