"""The document's experiment from raw material to report, with a tiny model, as a user runs it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from fieldtune.config import TemplateKind
from fieldtune.data.encode import Encoder
from fieldtune.loading import load
from fieldtune.models.tokenizer import Gpt2Tokenizer
from fieldtune.records import read_examples

from ..models import test_gpt2_openai as gptmodel
from ..stages import curve, lines_of, succeed
from .conftest import GOLF, MEASURED, Golf


def test_the_document_has_400_rows_340_40_20(tmp_path: Path) -> None:
    succeed(tmp_path, "prepare", "experiment=golf_gpt2", "tracking=off")
    (dataset,) = (tmp_path / "datasets" / "golf").glob("[0-9a-f]" * 64)
    for split, rows in (("train", 340), ("val", 40), ("test", 20)):
        exported = json.loads((dataset / f"golf_feedback_{split}.json").read_text(encoding="utf-8"))
        assert len(exported) == len(lines_of(dataset / f"{split}.jsonl")) == rows
        assert all(set(row) == {"instruction", "input", "output"} and all(row.values()) for row in exported)
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert manifest["rows"] == {"train": 340, "val": 40, "test": 20}
    assert manifest["near_duplicates"]["straddling"] == manifest["quarantined"] == 0
    assert manifest["fingerprint"] == dataset.name
    assert (dataset / "preview.html").exists()
    (run,) = (tmp_path / "outputs").glob("*/*")
    assert json.loads((run / "manifest.json").read_text())["metrics"]["rows/train"] == 340


def test_the_same_configuration_makes_the_same_data_set(golf: Golf, tmp_path: Path) -> None:
    succeed(tmp_path, "prepare", *GOLF)
    again = tmp_path / "datasets" / "golf" / golf.dataset.name
    assert (again / "train.jsonl").read_bytes() == (golf.dataset / "train.jsonl").read_bytes()


def test_metrics_have_every_step(golf: Golf) -> None:
    lines = lines_of(golf.train.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(7))  # 21 rows, 8 a step, 2 epochs; and before the first
    assert "train/loss" not in lines[0] and lines[0]["val/loss"] == pytest.approx(math.log(50257), abs=0.3)
    for line in lines[1:]:
        assert {"train/loss", "train/learning_rate", "train/gradient_norm", "epoch"} <= line.keys()
        assert all(math.isfinite(value) for value in line.values())
    assert [line["epoch"] for line in lines[1:]] == [1, 1, 1, 2, 2, 2]
    assert sorted(curve(golf.train, "val/loss")) == [0, 2, 4, 6]
    losses = curve(golf.train, "train/loss")
    assert losses[6] < losses[1]


def test_the_manifest_says_what_was_done(golf: Golf) -> None:
    manifest = golf.train.manifest()
    assert golf.train.status == "finished"
    assert manifest["data"]["fingerprint"] == golf.dataset.name
    assert manifest["data"]["rows"] == {"train": 21, "val": 21, "test": 18}
    assert manifest["model"]["trainable_parameters"] == manifest["model"]["parameters"] > 50257 * 64
    assert manifest["model"]["weights"] == "random" and manifest["model"]["adapter"] == "none"
    val = curve(golf.train, "val/loss")
    kept = min(val, key=val.__getitem__)
    steps = manifest["steps"]
    assert (steps["planned"], steps["done"], steps["kept"], steps["stopped_early"]) == (6, 6, kept, False)
    assert manifest["metrics"]["val/best_loss"] == val[kept]
    encoder = Encoder(Gpt2Tokenizer(), TemplateKind.alpaca)
    rows = [encoder.row(example.messages) for example in read_examples(golf.dataset / "train.jsonl")]
    assert steps["tokens"] == 2 * sum(len(row.ids) for row in rows)
    for name in manifest["files"]:
        assert (golf.train.folder / name).exists()
    assert manifest["left_out"] == {"train": [], "val": []}
    assert manifest["versions"]["torch"] == torch.__version__


def test_samples_after_each_epoch(golf: Golf) -> None:
    samples = lines_of(golf.train.folder / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [3, 3, 6, 6]
    ids = [example.id for example in read_examples(golf.dataset / "val.jsonl")][:2]
    assert [sample["id"] for sample in samples] == ids * 2
    assert all("Current Score" in sample["prompt"] and sample["answer"] for sample in samples)


def test_the_plain_state_dict_is_the_documents_model(golf: Golf, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.load(golf.train.folder / "gpt2-tiny-golf-feedback.pth", weights_only=True)
    for name, value in {"LAYERS": 2, "WIDTH": 64, "HEADS": 2, "VOCAB": 50257, "CONTEXT": 1024}.items():
        monkeypatch.setattr(gptmodel, name, value)
    theirs = gptmodel.GPTModel()
    theirs.load_state_dict(state, strict=True)
    gptmodel.assert_same_logits(theirs.eval(), GPT2LMHeadModel.from_pretrained(golf.train.folder / "model").eval())


def test_the_saved_tokenizer_gives_the_training_ids(golf: Golf) -> None:
    tokenizer = AutoTokenizer.from_pretrained(golf.train.folder / "model")
    ours = Gpt2Tokenizer()
    for example in read_examples(golf.dataset / "train.jsonl"):
        assert tokenizer.encode(example.text) == ours.encode(example.text)
    odd = "it's  naïve\n\n\t— 1,000 °C 高尔夫 🏌️‍♂️ <|endoftext|>"
    assert tokenizer.encode(odd) == ours.encode(odd, special=True)
    assert tokenizer.eos_token_id == ours.end_id


def test_the_loss_plot_is_a_pdf(golf: Golf) -> None:
    body = (golf.train.folder / "loss_plot_tiny.pdf").read_bytes()
    assert body.startswith(b"%PDF-") and body.rstrip().endswith(b"%%EOF") and len(body) > 5000


def test_predictions_are_complete(golf: Golf) -> None:
    lines = lines_of(golf.evaluation.folder / "predictions.jsonl")
    examples = list(read_examples(golf.dataset / "test.jsonl"))[:6]
    assert [line["id"] for line in lines] == [example.id for example in examples]
    for line, example in zip(lines, examples, strict=True):
        assert line["reference"] == example.answer and line["prompt"] == example.prompt_text
        assert line["answers"].keys() == line["scores"].keys() == line["checks"].keys() == {"base", "tuned"}
        assert {"loss", "ended", "sections", "drills"} <= line["scores"]["tuned"].keys()


def test_evaluation_metrics_are_well_formed(golf: Golf) -> None:
    found = json.loads((golf.evaluation.folder / "metrics.json").read_text(encoding="utf-8"))
    metrics = {metric["name"]: metric for metric in found["metrics"]}
    assert found["systems"] == ["base", "tuned"] and found["data"]["evaluated"] == 6
    for system in found["systems"]:
        loss = metrics["loss"][system]
        assert loss["low"] <= loss["value"] <= loss["high"] and loss["n"] == 6
        assert metrics["perplexity"][system]["value"] == pytest.approx(math.exp(loss["value"]))
    gap = metrics["loss"]["difference"]
    assert gap["high"] < 0  # the tuned model finds the held-out answers likelier, and the interval says so
    assert gap["value"] == pytest.approx(metrics["loss"]["tuned"]["value"] - metrics["loss"]["base"]["value"])
    manifest = golf.evaluation.manifest()
    assert manifest["evaluated_run"].endswith(golf.train.folder.name)
    assert manifest["metrics"]["tuned/loss"] == metrics["loss"]["tuned"]["value"]
    assert load(golf.evaluation.config()).model.name == "gpt2_tiny"


def test_the_report_is_one_self_contained_page(golf: Golf) -> None:
    html = (golf.evaluation.folder / "report.html").read_text(encoding="utf-8")
    assert html.lstrip().lower().startswith("<!doctype html>") and "</html>" in html
    assert not re.search(r"<(?:script|img|iframe|source)[^>]+src=[\"'](?!data:)", html)
    assert not re.search(r"<link[^>]+href=[\"'](?!data:)", html)
    assert not re.search(r"@import|url\((?![\"']?(?:data:|#))", html)
    for word in ("Perplexity", "golf_gpt2", golf.dataset.name[:12]):
        assert word in html


def test_evaluate_finds_the_run_of_an_experiment(golf: Golf) -> None:
    output = succeed(
        golf.folder, "evaluate", "experiment=golf_gpt2", *MEASURED, "evaluation.base=false", "evaluation.split=val"
    )
    report = golf.folder / output.splitlines()[-1].removeprefix("report: ")
    found = json.loads((report.parent / "metrics.json").read_text(encoding="utf-8"))
    assert found["run"].endswith(golf.train.folder.name) and found["systems"] == ["tuned"]
    assert found["data"]["split"] == "val"
