"""`experiment=judo_vlm`: drawn throws, prepared, learned by a small model, evaluated with and without eyes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fieldtune.cli import main
from fieldtune.errors import UserError
from fieldtune.planning.machine import Machine
from fieldtune.planning.plan import plan
from fieldtune.runs import Run
from fieldtune.sources.figures.throws import STILLS, make_stills
from tests.stages import TINY, compose, lines_of, question_rows, run_here, succeed, write_rows

EXPERIMENT = ("experiment=judo_vlm", "tracking=off")
SHORT = (
    *EXPERIMENT,
    "data.count=96",
    "trainer.max_steps=3",
    "trainer.warmup_steps=1",
    "trainer.eval_rows=4",
    "trainer.sample_rows=0",
    "hardware.threads=1",
)
MEASURED = ("tracking=off", "evaluation.rows=6", "evaluation.bootstrap=100", "evaluation.max_new_tokens=3")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> tuple[Path, tuple[str, ...], Run]:
    folder = tmp_path_factory.mktemp("judo")
    words = (*SHORT, f"cache_dir={tiny_cache}")
    run_here(folder, "prepare", *words)
    return folder, words, run_here(folder, "train", *words)


def test_pictures_can_be_kept_from_the_model(work: tuple[Path, tuple[str, ...], Run]) -> None:
    folder, _, run = work
    losses = {}
    for ablation in ("none", "text_only", "blank"):
        evaluated = run_here(folder, "evaluate", *MEASURED, f"run={run.folder}", f"evaluation.ablation={ablation}")
        metrics = json.loads((evaluated.folder / "metrics.json").read_text(encoding="utf-8"))
        losses[ablation] = metrics["labels"]["before"]["loss"]["value"]
        assert metrics["data"]["ablation"] == ablation
        assert any("without looking" in note for note in metrics["notes"]) == (ablation != "none")
        confidences = {line["label"]["confidence"] for line in lines_of(evaluated.folder / "predictions.jsonl")}
        assert (len(confidences) == 1) == (ablation != "none")  # rows differ in their pictures alone
    assert len(set(losses.values())) == 3


def test_rows_without_pictures_have_none_to_keep(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "mine.jsonl", question_rows(20))
    words = ("data=jsonl", f"data.path={path}", *TINY, "trainer=fit", "trainer.max_steps=1", "model.layers=1")
    for stage in ("prepare", "train"):
        run_here(tmp_path, stage, *words)
    with pytest.raises(UserError, match="no test row has a picture"):
        run_here(tmp_path, "evaluate", "run=latest", "tracking=off", "evaluation.ablation=blank")


def test_a_plan_says_what_the_training_holds(work: tuple[Path, tuple[str, ...], Run]) -> None:
    folder, words, run = work
    found = plan(compose(folder, "train", *words), Machine(1 << 40, 1, 1e9, "", ""))
    facts = run.manifest()["model"]
    assert (found.counts.parameters, found.counts.trainable) == (facts["parameters"], facts["trainable_parameters"])
    assert found.counts.seeing == found.counts.seeing_trained > 0 and found.work.numbers > 0
    log = (run.folder / "log.txt").read_text(encoding="utf-8")
    assert f"plan: {found.counts.parameters:,} parameters" in log and "plan: not known" not in log


def test_predict_names_the_throw_of_a_picture(
    work: tuple[Path, tuple[str, ...], Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, run = work
    stills = sorted(folder.glob("datasets/stills/*/o-goshi/*.png"))
    for image, count in ((stills[0], 1), (stills[0].parent, len(stills))):
        monkeypatch.setattr(sys, "argv", ["fieldtune", "predict", f"run={run.folder}", f"image={image}"])
        main()
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == count and lines[0]["request"] == {"image": str(stills[0])}
        assert lines[0]["label"] in {path.parent.name for path in folder.glob("datasets/stills/*/*/*.png")}
        assert 1 / 6 <= lines[0]["confidence"] <= 1
    (folder / "mine.png").write_text("words")
    for words, problem in (
        (["image=gone.png"], "image=gone.png does not exist"),
        ([f"image={folder / 'mine.png'}"], "mine.png is not a picture that can be read"),
        ([], "give input=FILE"),
        ([f"image={stills[0]}", "input=x.json"], "one of them"),
        ([f"image={folder / 'outputs'}"], "holds no picture"),
    ):
        monkeypatch.setattr(sys, "argv", ["fieldtune", "predict", f"run={run.folder}", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2 and problem in said and said.count("\n") == 1


def test_errors_are_asked_about_and_set_against_a_rule(tmp_path: Path, tiny_cache: Path) -> None:
    frames = make_stills(tmp_path / "stills", 96, seed=1)
    wrong = {"error_type": "head_down", "severity": "minor", "description": "The head hangs."}
    described = json.loads((frames / STILLS).read_text(encoding="utf-8"))
    said = [{**one, "errors": [] if number % 3 == 0 else [wrong]} for number, one in enumerate(described)]
    (frames / STILLS).write_text(json.dumps(said), encoding="utf-8")
    short = [word for word in SHORT if not word.startswith("data.")]
    words = (*short, "data=judo", f"data.frames={frames}", "data.split=[0.5,0.25,0.25]", f"cache_dir={tiny_cache}")
    run_here(tmp_path, "prepare", *words)
    run = run_here(tmp_path, "train", *words)
    measured = ("tracking=off", "evaluation.base=false", "evaluation.bootstrap=100", "evaluation.max_new_tokens=40")
    evaluated = run_here(tmp_path, "evaluate", *measured, f"run={run.folder}", "evaluation.rows=24")
    metrics = json.loads((evaluated.folder / "metrics.json").read_text(encoding="utf-8"))
    found = {metric["name"]: metric for metric in metrics["metrics"]}
    asked = [line for line in lines_of(evaluated.folder / "predictions.jsonl") if line["meta"]["kind"] == "errors"]
    faulty = sum(bool(line["meta"]["error_types"]) for line in asked)
    assert 0 < faulty < len(asked) == found["error_found"]["tuned"]["n"] < 24
    assert found["error_found"]["baseline"]["value"] == pytest.approx(faulty / len(asked))  # most stills are faulty
    assert metrics["labels"]["rows"] == 24 - len(asked)
    assert "Error detected" in (evaluated.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_throws_are_learned_by_looking(tmp_path: Path) -> None:
    """On performers that were never seen: clearly above the most common technique, and not so without the picture."""
    words = (*EXPERIMENT, "hardware.threads=1")  # several only wait for each other in a model as small as this
    for stage in ("prepare", "train"):
        succeed(tmp_path, stage, *words)
    found = {}
    for ablation in ("none", "text_only", "blank"):
        succeed(tmp_path, "evaluate", *words, "evaluation.base=false", f"evaluation.ablation={ablation}")
        newest = max(tmp_path.glob("outputs/*/*/metrics.json"), key=lambda path: path.stat().st_mtime_ns)
        found[ablation] = json.loads(newest.read_text(encoding="utf-8"))["labels"]
    assert found["none"]["over_majority"]["low"] > 0.25
    for ablation in ("text_only", "blank"):
        assert found[ablation]["over_majority"]["low"] <= 0.05
        assert found[ablation]["accuracy"]["value"] < found["none"]["accuracy"]["low"]
