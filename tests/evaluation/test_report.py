from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.evaluation.report import ranked, write_report
from fieldtune.evaluation.report_input import read_results
from tests.evaluation.folders import METRICS, golf_metrics, golf_rows, write_folder
from tests.evaluation.pages import CHROMIUM, chromium, overflow, parsed, words

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = golf_rows()
    return write_folder(tmp_path, golf_metrics(rows), rows)


def report(folder: Path, metrics: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    page = write_report(write_folder(folder, metrics, rows))
    html = page.read_text(encoding="utf-8")
    parsed(html)
    return html


def test_the_page_is_well_formed_and_shows_everything(folder: Path) -> None:
    page = write_report(folder)
    assert page == folder / "report.html"
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "predictions.jsonl", "report.html"]
    html = page.read_text(encoding="utf-8")
    text = words(parsed(html))
    for _, title, _, _, about in METRICS:
        assert title in text and about in text
    assert "beats the base on 6 of 7 metrics beyond chance (95% interval)." in text
    for wanted in ("By area", "weight_shift", "learning_rate: 0.0006", "3fa9c1d07be2", "outputs/2026-11-21", "4 min",
                   "how well the form was learned", "severity word missing", "optimizer step"):  # fmt: skip
        assert wanted in text
    assert "https://" not in html and "http://" not in html
    assert html.count('<svg class="interval"') == len(METRICS)
    assert html.count('<svg class="chart"') == 2


def test_ranking_takes_each_row_once_and_the_loss_breaks_ties(tmp_path: Path) -> None:
    rows = golf_rows(5)
    for row, loss in zip(rows, (0.5, 0.1, 0.4, 0.2, 0.3), strict=True):
        row["scores"]["tuned"] = {"sections": 1.0, "loss": loss}
    best, worst = ranked(read_results(write_folder(tmp_path, golf_metrics(golf_rows(5)), rows)))
    assert [sample.row.scores["tuned"]["loss"] for sample in best] == [0.1, 0.2, 0.3]
    assert [sample.row.scores["tuned"]["loss"] for sample in worst] == [0.5, 0.4]


def test_what_a_model_wrote_is_text(tmp_path: Path) -> None:
    rows = golf_rows(2)
    metrics = golf_metrics(rows)
    attack = "<script>alert(1)</script></details><img src=x onerror=alert(2)>" + "\ud800" + "</textarea>"
    for row in rows:
        row["answers"] = {"base": attack * 20, "tuned": attack}
        row["checks"]["tuned"] = [attack]
        row["meta"] = {attack: attack}
        row["id"] = row["prompt"] = row["reference"] = attack
    metrics["metrics"][0]["title"] = metrics["notes"][0] = metrics["config"] = metrics["title"] = attack
    metrics["breakdowns"][0]["groups"][0]["group"] = '" onmouseover="alert(3)'
    metrics["curves"] = {f"{attack}/loss": [[0, 1.0], [1, 0.5]]}
    html = report(tmp_path, metrics, rows)
    assert "<script>alert" not in html and "<img" not in html
    assert 'onmouseover="' not in html


def test_curves_with_nan_and_a_single_point(tmp_path: Path) -> None:
    rows = golf_rows(6)
    metrics = golf_metrics(rows)
    metrics["curves"] = {"train/loss": [[1, 4.0], [2, math.nan], [3, 2.0], [4, None]], "val/loss": [[4, 2.5]]}
    html = report(tmp_path, metrics, rows)
    assert "train/loss: 2 of 4 values are not finite" in html
    assert not re.search(r"\b(nan|inf)\b", html.lower())
    metrics["curves"] = {"val/loss": [[0, math.inf]]}
    assert "No loss was recorded" in report(tmp_path, metrics, rows)


def test_only_the_tuned_model(tmp_path: Path) -> None:
    rows = golf_rows()
    metrics = golf_metrics(rows)
    metrics["systems"] = ["tuned"]
    for metric in metrics["metrics"]:
        metric["base"] = metric["difference"] = None
    for row in rows:
        del row["answers"]["base"], row["scores"]["base"], row["checks"]["base"]
    html = report(tmp_path, metrics, rows)
    assert "Only the tuned model was evaluated" in html
    assert "Base model" not in html and "Difference" not in html


def test_no_predictions_and_nothing_measured(tmp_path: Path) -> None:
    html = report(tmp_path, golf_metrics([]), [])
    assert "not measured" in html and "No answer of the tuned model has a score" in html
    assert "cannot be told from the base model" in html


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            [(0.1, 0.2), (-0.2, -0.1)],
            "beats the base on 1 of 2 metrics beyond chance (95% interval) and is worse on 1.",
        ),
        ([(-0.1, 0.2), (0.0, 0.1)], "differs from the base on none of 2 metrics beyond chance"),
        ([(-0.3, -0.2)], "is worse than the base on 1 of 1 metric beyond chance"),
        ([(None, None)], "cannot be told from the base model"),
    ],
)
def test_verdict(tmp_path: Path, differences: list[tuple[float | None, float | None]], expected: str) -> None:
    rows = golf_rows(6)
    metrics = golf_metrics(rows)
    metrics["metrics"] = metrics["metrics"][: len(differences)]
    for metric, (low, high) in zip(metrics["metrics"], differences, strict=True):
        metric["difference"] = {"value": 0.1, "low": low, "high": high}
    assert expected in report(tmp_path, metrics, rows)


def test_near_duplicates_across_splits_are_said(tmp_path: Path) -> None:
    rows = golf_rows(6)
    metrics = golf_metrics(rows)
    metrics["data"]["near_duplicates_straddling"] = 3
    assert "3 groups of near-duplicate rows lie in more than one split" in report(tmp_path, metrics, rows)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metrics.json", None, "does not exist"),
        ("predictions.jsonl", None, "does not exist"),
        ("metrics.json", b'{"title": ', "not JSON"),
        ("metrics.json", b"\xff\xfe\xfa", "not JSON"),
        ("metrics.json", b"[]", "must be a JSON object"),
        ("metrics.json", b"{}", "'metrics' is missing"),
        ("predictions.jsonl", b'{"id": "a", "prompt": "p", "answers": {}}\n{"id"', "predictions.jsonl:2: not JSON"),
        ("predictions.jsonl", b'{"id": "a"}\n', "predictions.jsonl:1: 'answers' is missing"),
    ],
)
def test_broken_files_are_said_in_one_line(folder: Path, name: str, content: bytes | None, expected: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not (folder / "report.html").exists()


@needs_browser
@pytest.mark.parametrize("width", [360, 390, 1200])
def test_no_horizontal_scroll(folder: Path, tmp_path: Path, width: int) -> None:
    assert overflow(write_report(folder), tmp_path, width) <= 0


@needs_browser
def test_prints(folder: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    chromium(write_report(folder), tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert pdf.read_bytes().startswith(b"%PDF-")
