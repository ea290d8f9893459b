"""The evaluate stage: a finished run and held-out rows in; predictions, metrics with intervals and a report out."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from fieldtune import datasets, tasks
from fieldtune.config import Ablation, Config, Decoding, to_yaml
from fieldtune.data.load import Rows, load_split
from fieldtune.datasets import Dataset
from fieldtune.errors import UserError
from fieldtune.evaluation.ablation import NOTES, Change, ablated
from fieldtune.evaluation.compare import breakdowns, compare, compare_answers, score_rows
from fieldtune.evaluation.labels import LabelTest, label_line, label_test
from fieldtune.evaluation.likeness import baseline_values, missing, with_likeness
from fieldtune.evaluation.metrics import Resampling, run_hashes
from fieldtune.evaluation.predict import Predictions, answers, measure, questions
from fieldtune.evaluation.report import write_report
from fieldtune.evaluation.shown_media import media_lines, moments_of, readable
from fieldtune.models.films import Moments
from fieldtune.models.generate import Sampling
from fieldtune.models.keeping import keeping_media
from fieldtune.models.run_model import RunModel
from fieldtune.records import read_examples, read_jsonl, write_jsonl
from fieldtune.runs import Run, open_run, write_json
from fieldtune.tasks.base import Score, Task
from fieldtune.tracking import Tracker

log = logging.getLogger("fieldtune")

PREDICTIONS, METRICS, REPORT = "predictions.jsonl", "metrics.json", "report.html"
ABLATED = "ablated"  # pictures and films as an ablation shows them, while they are needed
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
    change = ablated(config.evaluation.ablation, run_dir / ABLATED, config.seed)
    rows = readable(config, models, _loaded(config, dataset, models, change))
    task = tasks.get(config.data.task)
    schemas = _schemas(task, rows, config)
    compared = islice(read_examples(dataset.split("train")), TRAINING_ROWS_COMPARED)
    known = run_hashes(example.answer for example in compared)
    rule = task.baseline(read_examples(dataset.split("train")))
    test = label_test(task, config, dataset, rows, models.encoder, change, lambda some: readable(config, models, some))
    first, *others = _measured(config, models, rows, schemas, test)
    for one in (first, *others):
        scored = score_rows(task, rows.examples, one.predictions, known)
        for name, scores in scored.items():
            one.scored[name] = with_likeness(task, rows.examples, one.predictions[name], scores)
    if test is not None:
        first.scored = {name: test.with_labels(name, scores) for name, scores in first.scored.items()}
    manifest = run.manifest()
    groups = [example.group for example in rows.examples]
    usual = baseline_values(task, rule, rows.examples)
    how = Resampling(config.evaluation.bootstrap, config.seed, groups)
    summary = {
        "title": config.name,
        "run": str(run.folder),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "model": manifest["model"],
        "data": {**_data_facts(config, dataset, rows), "groups": len(set(groups))},
        "systems": list(first.predictions),
        "decoding": first.decoding.name,
        "metrics": compare(task, first.predictions, first.scored, how, usual),
        "constrained": [row for one in others for row in compare_answers(task, one.scored, how, usual)],
        "breakdowns": breakdowns(task, rows.examples, first.scored),
        "labels": test.summary(how) if test else None,
        "baseline": {"title": rule.title, "about": rule.about} if rule else None,
        "packing": manifest.get("packing"),
        "curves": _curves(run),
        "config": to_yaml(config),
        "times": {
            "train_seconds": manifest["seconds"],
            "evaluate_seconds": round(time.monotonic() - started, 1),
        },
        "notes": _notes(config, dataset, rows, groups) + missing(task),
    }
    write_jsonl(run_dir / PREDICTIONS, _lines(rows, first, others, test.lines() if test else {}))
    write_json(run_dir / METRICS, summary)
    report = write_report(run_dir)
    shutil.rmtree(run_dir / ABLATED, ignore_errors=True)
    _tell(rows, first.predictions, summary, report)
    _track(tracker, config, rows, first.predictions, run_dir)
    return {
        "evaluated_run": str(run.folder),
        "data": summary["data"],
        "model": summary["model"],
        "metrics": _flat(summary),
        "left_out": rows.left_out,
        "files": {PREDICTIONS: "one object a row", METRICS: "metrics with intervals", REPORT: "the report"},
    }


def _loaded(config: Config, dataset: Dataset, models: RunModel, change: Change) -> Rows:
    settings = config.evaluation
    split = dataset.split(settings.split)
    some = islice(read_examples(split), settings.rows)
    if settings.ablation is not Ablation.none and not any(example.media for example in some):
        raise UserError(
            f"evaluation.ablation={settings.ablation.name}: no {settings.split} row has a picture or film; "
            "give evaluation.ablation=none"
        )
    rows = load_split(
        dataset, settings.split, models.encoder, config.model.context_length, rows=settings.rows, change=change
    )
    if not rows.encoded:
        raise UserError(f"the {settings.split} split is empty; give evaluation.split= or another data.split=")
    return rows


@dataclass(slots=True)
class Measured:
    """What each system answered, decoded in one way, and the scores of that."""

    decoding: Decoding
    predictions: dict[str, Predictions] = field(default_factory=dict)
    scored: dict[str, list[Score]] = field(default_factory=dict)
    moments: dict[int, Moments] = field(default_factory=dict)  # that the tuned model chose of films, see `moments_of`


def _schemas(task: Task, rows: Rows, config: Config) -> list[Mapping[str, Any] | None]:
    """The JSON schema of each row's answer, None where it is text."""
    found = [task.answer_schema(example) for example in rows.examples]
    if config.evaluation.decoding is not Decoding.free and not any(found):
        raise UserError(
            f"evaluation.decoding={config.evaluation.decoding.name}: no answer of these rows has a JSON schema "
            f"(data.task={config.data.task}); give evaluation.decoding=free"
        )
    return found


def _measured(
    config: Config,
    models: RunModel,
    rows: Rows,
    schemas: Sequence[Mapping[str, Any] | None],
    test: LabelTest | None,
) -> list[Measured]:
    """Free and constrained, or one of them, in this order. One model is in memory at a time."""
    settings = config.evaluation
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_k, config.seed)
    both = settings.decoding is Decoding.both
    found = [Measured(way) for way in ((Decoding.free, Decoding.constrained) if both else (settings.decoding,))]
    for name in ("base", "tuned") if settings.base else ("tuned",):
        with models.system(name) as model, keeping_media(config, model, models.encoder.reader) as kept:
            losses = measure(name, model, models.encoder, rows, settings.batch_size, config.trainer.packing)
            if test is not None:
                test.measure(name, model, models.encoder, config.trainer.packing)
            for one in found:
                held = one.decoding is Decoding.constrained
                asked = questions(schemas, settings.base_rows if name == "base" else None, constrained=held, apart=both)
                what = f"{'constrained ' if held else ''}answers of the {name} model"
                said = answers(what, model, models.encoder, rows, asked, settings.batch_size, sampling)
                one.predictions[name] = Predictions(losses, said)
            if name == "tuned":
                found[0].moments = moments_of(model, kept, rows)
    return found


def _data_facts(config: Config, dataset: Dataset, rows: Rows) -> dict[str, Any]:
    return {
        "task": config.data.task,
        "fingerprint": dataset.fingerprint,
        "rows": dataset.rows,
        "split": config.evaluation.split,
        "ablation": config.evaluation.ablation.name,
        "evaluated": len(rows.examples),
        "near_duplicates_straddling": dataset.manifest["near_duplicates"]["straddling"],
    }


def _notes(config: Config, dataset: Dataset, rows: Rows, groups: Sequence[str]) -> list[str]:
    notes = []
    if config.evaluation.ablation is not Ablation.none:
        notes.append(NOTES[config.evaluation.ablation])
    if config.evaluation.split == "train":
        notes.append("These are training rows: the figures say how well they were learned, not how well they transfer.")
    if rows.left_out:
        notes.append(f"{len(rows.left_out)} rows were left out; the manifest lists them.")
    if dataset.rows["train"] > TRAINING_ROWS_COMPARED:
        notes.append(f"Overlap was looked for in the first {TRAINING_ROWS_COMPARED:,} training rows.")
    if len(set(groups)) < len(groups):
        notes.append(
            f"The {len(groups)} rows are of {len(set(groups))} groups (such as athletes). Rows of a group depend on "
            "each other, so the intervals resample whole groups."
        )
    asked = config.evaluation.base_rows
    if config.evaluation.base and asked is not None and asked < len(groups):
        notes.append(f"The base model answered the first {asked} rows; differences from it are over these rows.")
    if config.evaluation.decoding is Decoding.constrained:
        notes.append("Answers in JSON were held to their schema while they were decoded.")
    return notes


def _curves(run: Run) -> dict[str, list[list[float]]]:
    lines = list(read_jsonl(run.folder / "metrics.jsonl"))
    names = ("train/loss", "val/loss")
    return {name: [[line["step"], line[name]] for line in lines if name in line] for name in names}


def _lines(
    rows: Rows, first: Measured, others: Sequence[Measured], labels: Mapping[int, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A line a row. What was decoded in another way than the first stands as tuned_constrained."""
    named = [(name, first.predictions[name], first.scored[name]) for name in first.predictions]
    named += [
        (f"{name}_{one.decoding.name}", one.predictions[name], one.scored[name])
        for one in others
        for name in one.predictions
    ]
    return [
        {
            "id": example.id,
            "prompt": example.prompt_text,
            "reference": example.answer,
            "meta": example.meta,
            "answers": {name: text for name, said, _ in named if (text := said.text(number)) is not None},
            "scores": {name: dict(scores[number].values) for name, _, scores in named},
            "checks": {name: list(scores[number].checks) for name, _, scores in named},
            **({"label": labels[number]} if number in labels else {}),
            **({"media": media_lines(example, rows.encoded[number], first.moments)} if example.media else {}),
        }
        for number, example in enumerate(rows.examples)
    ]


def _flat(summary: Mapping[str, Any]) -> dict[str, float]:
    found = {
        f"tuned/ece{ending}": summary["labels"][when]["ece"]["value"]
        for when, ending in (("before", ""), ("after", "_calibrated"))
        if summary["labels"] and summary["labels"][when]
    }
    return found | {
        f"{system}{ending}/{metric['name']}": metric[system]["value"]
        for table, ending in (("metrics", ""), ("constrained", "_constrained"))
        for metric in summary[table]
        for system in ("base", "tuned", "baseline")
        if metric.get(system) and (system != "baseline" or not ending)
    }


def _tell(rows: Rows, predictions: Mapping[str, Predictions], summary: Mapping[str, Any], report: Path) -> None:
    for number, example in enumerate(rows.examples[:SHOWN]):
        log.info("%s\n%s", "-" * 80, example.prompt_text)
        for name, predicted in predictions.items():
            text = predicted.text(number)
            log.info("\n[%s]\n%s", name, "(not asked)" if text is None else text)
    log.info("-" * 80)
    log.info("%-34s %26s %26s", f"{len(rows.examples)} held-out rows, 95 % intervals", *_columns(predictions))
    for metric in summary["metrics"]:
        log.info("%-34s %26s %26s", metric["title"], *_cells(metric, "base", "tuned"))
    if summary["constrained"]:
        log.info("%-34s", "held to their JSON schema:")
    for metric in summary["constrained"]:
        if metric["tuned"]:
            log.info("%-34s %26s %26s", metric["title"], *_cells(metric, "base", "tuned"))
    if summary["baseline"]:
        log.info("%s: %s", summary["baseline"]["title"], summary["baseline"]["about"])
        log.info("%-34s %26s %26s", "", "always that", "tuned above it by")
    for metric in summary["metrics"]:
        if metric.get("baseline"):
            log.info("%-34s %26s %26s", metric["title"], *_cells(metric, "baseline", "over_baseline"))
    if summary["labels"]:
        log.info("%s", label_line(summary["labels"]))
    log.info("report: %s", report)


def _cells(metric: Mapping[str, Any], *names: str) -> list[str]:
    return [_cell(metric[name]) if metric.get(name) else "" for name in names]


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
            *(predicted.text(number) or "" for predicted in predictions.values()),
        )
        for number in shown
    ]
    tracker.table("predictions", columns, table)
    files = [run_dir / name for name in (PREDICTIONS, METRICS, REPORT)]
    tracker.artifact(f"{config.name}-evaluation", "evaluation", files, {"rows": len(rows.examples)})
