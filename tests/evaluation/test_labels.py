"""Rows that ask for a label: through prepare, train and evaluate, and what the report says of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldtune.errors import UserError
from fieldtune.evaluation.labels import Asked, LabelTest, label_line
from fieldtune.evaluation.metrics import Resampling
from fieldtune.evaluation.report import write_report
from fieldtune.records import Example, Message
from fieldtune.runs import Run
from tests.evaluation.folders import golf_metrics, golf_rows, write_folder
from tests.evaluation.pages import CHROMIUM, overflow, parsed, words
from tests.stages import TINY, lines_of, question_rows, run_here, write_rows

NAMES = ("yes", "no", "unsure")
ROWS = 60
SMALL = ("model.layers=1", "model.heads=2", "model.width=8")
FEW = ("evaluation.max_new_tokens=3", "evaluation.bootstrap=100", "evaluation.batch_size=4", "tracking=off")


def labeled_rows() -> list[dict[str, Any]]:
    rows = question_rows(ROWS)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] = NAMES[number * 7 % 3]
    return rows


def data(folder: Path, labels: str = "[yes,no,unsure]") -> tuple[str, ...]:
    path = write_rows(folder / "rows.jsonl", labeled_rows())
    return ("data=jsonl", f"data.path={path}", f"data.classes={labels}", "data.split=[0.6,0.2,0.2]", "tracking=off")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("labels")
    rows = data(folder)
    run_here(folder, "prepare", *rows)
    return folder, run_here(folder, "train", *rows, *TINY, *SMALL, "trainer=fit", "trainer.max_steps=3")


@pytest.fixture(scope="module")
def evaluation(trained: tuple[Path, Run]) -> Path:
    folder, run = trained
    return run_here(folder, "evaluate", f"run={run.folder}", *FEW).folder


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_each_row_has_its_confidence(evaluation: Path) -> None:
    lines = lines_of(evaluation / "predictions.jsonl")
    assert len(lines) == ROWS // 5
    for line in lines:
        assert line["label"]["label"] in NAMES
        assert 1 / 3 <= line["label"]["confidence"] <= 1 and 1 / 3 <= line["label"]["calibrated"] <= 1
        assert line["scores"]["tuned"]["label"] == float(line["label"]["label"] == line["reference"])
        assert line["scores"]["base"]["label"] in (0.0, 1.0)


def test_the_summary_counts_what_the_rows_say(evaluation: Path) -> None:
    found, lines = metrics_of(evaluation), lines_of(evaluation / "predictions.jsonl")
    labels = found["labels"]
    right = [line["label"]["label"] == line["reference"] for line in lines]
    assert labels["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    assert labels["rows"] == len(lines) == sum(map(sum, labels["confusion"])) and labels["fitted_on"] == ROWS // 5
    assert sum(row[n] for n, row in enumerate(labels["confusion"])) == sum(right)
    assert labels["before"]["confidence"] == pytest.approx(np.mean([x["label"]["confidence"] for x in lines]), abs=1e-5)
    assert labels["after"]["confidence"] == pytest.approx(np.mean([x["label"]["calibrated"] for x in lines]), abs=1e-5)
    assert labels["coverage"][0]["covered"] == 1.0
    assert labels["coverage"][0]["accuracy"]["value"] == labels["accuracy"]["value"]
    assert [row["n"] for row in labels["classes"]] == [
        sum(line["reference"] == name for line in lines) for name in NAMES
    ]
    assert 0 < labels["mass"] < 1
    named = {metric["name"]: metric for metric in found["metrics"]}
    assert named["label"]["tuned"]["value"] == labels["accuracy"]["value"]
    assert named["brier"]["difference"]["n"] == len(lines)


def test_the_report_shows_it(evaluation: Path) -> None:
    html = (evaluation / "report.html").read_text(encoding="utf-8")
    said = words(parsed(html))
    for wanted in ("12 rows ask for one of 3 labels", "Calibration error", "Temperature", "What is taken for what",
                   "Confidence from, calibrated", "By label", "Most probable label"):  # fmt: skip
        assert wanted in said
    assert html.count('<svg class="chart"') == 6  # losses, reliability and coverage, wide and narrow


def test_validation_rows_do_not_calibrate_themselves(trained: tuple[Path, Run]) -> None:
    folder, run = trained
    words = (f"run={run.folder}", *FEW, "evaluation.split=val", "evaluation.base=false")
    labels = metrics_of(run_here(folder, "evaluate", *words).folder)["labels"]
    assert labels["temperature"] is None and labels["after"] is None and "those evaluated" in labels["why"]


def test_an_answer_that_is_no_label_is_put_aside(tmp_path: Path) -> None:
    facts = run_here(tmp_path, "prepare", *data(tmp_path, "[yes,no]")).manifest()["data"]
    assert facts["quarantined"] == ROWS // 3
    kept_aside = lines_of(Path(facts["folder"]) / "quarantine.jsonl")
    assert all("not one of data.classes; the nearest is" in line["reason"] for line in kept_aside)


LOGS = np.log([[0.6, 0.1, 0.1], [0.4, 0.5, 0.05], [0.1, 0.1, 0.7], [0.5, 0.3, 0.1]])
TARGETS = np.array([0, 0, 2, 0])


def label_test(*, fitted: bool) -> LabelTest:
    examples = [Example(str(n), (Message("user", ("?",)), Message("assistant", ("yes",))), "s", "g") for n in range(4)]
    asked = Asked(examples, [0, 1, 2, 3], TARGETS)
    test = LabelTest(NAMES, asked, asked if fitted else None, "" if fitted else "No rows.", 0, "yes", {"tuned": LOGS})
    test.fitted = LOGS if fitted else None
    return test


@pytest.mark.parametrize("fitted", [True, False])
def test_a_summary_by_hand(fitted: bool) -> None:
    found = label_test(fitted=fitted).summary(Resampling(100, 0, ["a", "a", "b", "b"]))
    assert found["accuracy"]["value"] == 0.75 and found["confused"][0]["taken_for"] == "no"
    assert found["mass"] == pytest.approx((0.8 + 0.95 + 0.9 + 0.9) / 4)
    assert found["before"]["loss"]["value"] == pytest.approx(
        -np.log([0.6 / 0.8, 0.4 / 0.95, 0.7 / 0.9, 0.5 / 0.9]).mean()
    )
    assert found["majority"]["label"] == "yes" and found["majority"]["value"] == 0.75
    assert found["over_majority"]["value"] == 0.0  # three of four right, as always saying yes is
    assert (found["after"] is None) == (not fitted)
    assert ("temperature" in label_line(found)) == fitted
    if fitted:
        assert found["after"]["loss"]["value"] <= found["before"]["loss"]["value"]


@pytest.mark.parametrize("fitted", [True, False])
def test_a_report_of_many_labels_fits_the_page(tmp_path: Path, fitted: bool) -> None:
    metrics, rows = golf_metrics(golf_rows()), golf_rows()
    names = [f"kuzure-kami-shiho-gatame-{number}" for number in range(40)]
    test = label_test(fitted=fitted)
    random = np.random.default_rng(0)
    test.names, test.logs = names, {"tuned": np.log(random.dirichlet(np.ones(40), 4))}
    test.fitted = test.logs["tuned"] if fitted else None
    metrics["labels"] = test.summary(Resampling(100, 0))
    page = write_report(write_folder(tmp_path, metrics, rows))
    html = page.read_text(encoding="utf-8")
    parsed(html)
    assert ("calibrated" in html) == fitted and ("No rows." in html) == (not fitted)
    if CHROMIUM is not None:
        assert overflow(page, tmp_path, 390) <= 0


def test_broken_labels_are_said_in_one_line(tmp_path: Path) -> None:
    metrics = golf_metrics(golf_rows())
    metrics["labels"] = label_test(fitted=True).summary(Resampling(100, 0))
    del metrics["labels"]["classes"][0]["f1"]
    with pytest.raises(UserError, match=r"'labels' is not what evaluate\.py writes") as caught:
        write_report(write_folder(tmp_path, metrics, golf_rows()))
    assert "\n" not in str(caught.value)


def test_a_temperature_at_the_end_of_its_range_is_said() -> None:
    test = label_test(fitted=True)
    assert test.validation is not None
    test.validation = Asked(test.validation.examples, [0, 1, 2, 3], LOGS.argmax(axis=1))
    found = test.summary(Resampling(100, 0))
    assert "do not bound it" in found["why"]
    assert math.isfinite(found["after"]["loss"]["value"])
