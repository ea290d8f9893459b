"""Films from a file of rows to answers: prepared, trained with the cache, cut off and gone on with, evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fieldtune import runs
from fieldtune.config import Packing
from fieldtune.data.broken_media import BrokenRows
from fieldtune.data.load import encode_examples
from fieldtune.data.media import BrokenMedia
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.errors import UserError
from fieldtune.loading import load
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.run_model import RunModel, start_model
from fieldtune.records import Media, Message, read_examples, write_jsonl
from fieldtune.serving.predictor import Predictor
from fieldtune.tracking import NullTracker
from tests.sources.films import cut, write_film
from tests.stages import compose, curve, lines_of, run_here, succeed, told, work_here
from tests.training.test_vision_stage import COMMON, TRAINED, Failing

FILMS = 10
TWO = ("hardware=ddp_cpu", "hardware.devices=2", "hardware.threads=1")


def write_rows(folder: Path) -> Path:
    """Two questions about each film, which stands from the file's own folder."""
    folder.mkdir()
    lines: list[dict[str, Any]] = []
    for number in range(FILMS):
        write_film(folder / f"{number}.mp4", range(20 * number, 20 * number + 20))
        for question in ("How long is it?", "Which number is it?"):
            asked = [{"type": "video", "path": f"{number}.mp4"}, {"type": "text", "text": question}]
            answer = f"It is {2 if 'long' in question else number}."
            lines.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
    write_jsonl(folder / "rows.jsonl", lines)
    return folder / "rows.jsonl"


def words(work: Path, *more: str) -> tuple[str, ...]:
    places = (f"data.path={work / 'rows' / 'rows.jsonl'}", f"cache_dir={work / 'cache'}")
    return (*TRAINED, *places, "model=mobile_videogpt_tiny", *more)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("films")
    run_here(work, "prepare", *COMMON, f"data.path={write_rows(work / 'rows')}")
    return work


@pytest.fixture(scope="module")
def run(work: Path) -> runs.Run:
    return run_here(work, "train", *words(work))


def question(work: Path) -> tuple[Message, ...]:
    return (Message("user", (Media("video", str(work / "rows" / "1.mp4")), "How long is it?")),)


def test_the_loss_falls_and_the_projectors_are_saved(run: runs.Run) -> None:
    losses = list(curve(run, "train/loss").values())
    assert losses[-1] < losses[0]
    start, _ = start_model(load(run.config()))
    state = load_file(run.folder / "adapter" / "projector.safetensors")
    assert {name.partition(".")[0] for name in state} == {"image_projector", "video_projector"} and len(state) == 12
    assert all((start.get_base_model().get_parameter(name) != value).any() for name, value in state.items())
    facts = run.manifest()["media_cache"]
    assert facts["made"] == len(films_of(run)) and facts["read"] > 0
    assert facts["kept"] == "looks"
    waits = run.manifest()["steps"]["data_wait"]
    assert set(waits) == {"first_epoch", "later_epochs"} and all(0 <= share <= 1 for share in waits.values())
    assert "% of step time after the first epoch" in (run.folder / "log.txt").read_text(encoding="utf-8")


def films_of(run: runs.Run) -> set[str]:
    """Films of the training and validation rows."""
    folder = Path(run.manifest()["data"]["folder"])
    return {
        line["messages"][0]["content"][0]["path"]
        for split in ("train", "val")
        for line in lines_of(folder / f"{split}.jsonl")
    }


def test_towers_stay_and_a_saved_run_answers(work: Path, run: runs.Run) -> None:
    config = load(run.config())
    models, (start, encoder) = RunModel(run, config), start_model(config)
    asked = encoder.prompt(question(work))
    base = generate(start, encoder.tokenizer, [asked], Sampling(6))
    with models.system("tuned") as tuned:
        for name, parameter in start.get_base_model().named_parameters():
            if "_tower" in name or "base_layer" in name:
                assert torch.equal(tuned.get_base_model().get_parameter(name), parameter), name
    with models.system("base") as plain:
        assert generate(plain, encoder.tokenizer, [asked], Sampling(6)) == base


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(run: runs.Run, tmp_path: Path) -> None:
    from fieldtune.training.stage import train

    for name in (runs.CONFIG, runs.STARTED):
        shutil.copy(run.folder / name, tmp_path / name)
    with pytest.raises(ConnectionError):
        train(load(run.config()), tmp_path, Failing())
    work_here(tmp_path)
    assert told(tmp_path) == told(run.folder)
    assert runs.open_run(tmp_path).manifest()["media_cache"]["made"] == 0


def test_it_is_evaluated_and_asked(work: Path, run: runs.Run) -> None:
    more = ("evaluation.max_new_tokens=4", "evaluation.bootstrap=100", f"cache_dir={work / 'cache'}")
    found = run_here(work, "evaluate", "tracking=off", f"run={run.folder}", *more)
    assert found.manifest()["metrics"]["tuned/loss"] < found.manifest()["metrics"]["base/loss"]
    asked = [{"type": "video", "path": str(work / "rows/1.mp4")}, {"type": "text", "text": "How long is it?"}]
    (answer,) = Predictor(run.folder).predict([{"messages": [{"role": "user", "content": asked}]}])
    assert answer.tokens > 0


def test_an_evaluation_decodes_no_film_twice_and_shows_what_was_chosen(work: Path, run: runs.Run) -> None:
    more = ("evaluation.max_new_tokens=3", "evaluation.bootstrap=100", "evaluation.split=val")
    found = run_here(work, "evaluate", "tracking=off", f"run={run.folder}", f"cache_dir={work / 'cache'}", *more)
    assert "media cache: 0 of " in (found.folder / "log.txt").read_text(encoding="utf-8")
    lines = lines_of(found.folder / "predictions.jsonl")
    for line in lines:
        (film,) = line["media"]
        assert film["type"] == "video" and film["path"].endswith(".mp4")
        assert film["frames"] == sorted({*film["frames"]}) and len(film["frames"]) == 8
        assert film["seconds"] == [pytest.approx(number / 10, abs=1e-3) for number in film["frames"]]
    html = (found.folder / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == len(lines) and "frames that the tuned model chose" in html


@contextmanager
def broken(path: Path, share: float = 0.3) -> Iterator[None]:
    """While a film is cut off."""
    whole = path.read_bytes()
    cut(path, share)
    try:
        yield
    finally:
        path.write_bytes(whole)


def test_a_film_that_breaks_costs_an_evaluation_its_rows(work: Path, run: runs.Run) -> None:
    folder = Path(run.manifest()["data"]["folder"])
    films = sorted({line["messages"][0]["content"][0]["path"] for line in lines_of(folder / "test.jsonl")})
    more = ("evaluation.max_new_tokens=3", "evaluation.base=false", f"cache_dir={work / 'empty'}")
    with broken(Path(films[0])):
        found = run_here(work, "evaluate", "tracking=off", f"run={run.folder}", *more)
    reasons = {reason for _, reason in found.manifest()["left_out"]}
    assert len(reasons) == 1 and films[0] in reasons.pop() and len(found.manifest()["left_out"]) == 2
    assert found.manifest()["data"]["evaluated"] == 2 * len(films) - 2


def middle(run: runs.Run) -> str:
    """A film that is trained, but not in the last step of an epoch alone."""
    folder = Path(run.manifest()["data"]["folder"])
    return str(lines_of(folder / "train.jsonl")[0]["messages"][0]["content"][0]["path"])


class Breaking(NullTracker):
    """Cuts a film off when a step is told."""

    def __init__(self, film: Path, at: int) -> None:
        self.film, self.at = film, at

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if step == self.at:
            cut(self.film, 0.3)


@pytest.mark.parametrize("cache", ["0", "0.00001"])
def test_a_film_that_breaks_costs_a_training_its_rows_from_there_on(
    cache: str, work: Path, run: runs.Run, tmp_path: Path
) -> None:
    """Without a cache, and with one that has no room, so that entries are made again."""
    from fieldtune.training.stage import train

    film = Path(middle(run))
    given = compose(work, "train", *words(work, f"trainer.media_cache_gb={cache}", f"cache_dir={tmp_path / 'cache'}"))
    with broken(film, 1.0):
        facts = train(given, tmp_path, Breaking(film, 2))
    lost = {identity for identity, reason in facts["left_out"]["train"] if str(film) in reason}
    assert len(lost) == 2 and facts["steps"]["done"] == run.manifest()["steps"]["done"]
    log = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert "NaN" not in log
    before, after = curve(run, "train/loss"), curve(tmp_path, "train/loss")
    assert [after[step] for step in (1, 2)] == pytest.approx([before[step] for step in (1, 2)], rel=1e-5)
    assert after != pytest.approx(before, rel=1e-5)


@pytest.mark.slow
def test_two_processes_leave_out_what_one_does(work: Path, run: runs.Run) -> None:
    """A film that is broken from the beginning: each process finds it where it comes across it."""
    film, curves, lost = Path(middle(run)), [], []
    given = words(work, "trainer.media_cache_gb=0", "trainer.max_epochs=2", "trainer.sample_rows=0")
    with broken(film):
        for more in (("trainer.micro_batch_size=4",), ("trainer.micro_batch_size=2", *TWO)):
            before = {*work.glob("outputs/*/*/run.json")}
            succeed(work, "train", *given, *more)
            (made,) = {*work.glob("outputs/*/*/run.json")} - before
            curves.append(curve(made.parent, "train/loss") | curve(made.parent, "val/loss"))
            left_out = runs.open_run(made.parent).manifest()["left_out"]
            lost.append(sorted(identity for part in left_out.values() for identity, _ in part))
    assert lost[0] == lost[1] and len(lost[0]) == 2
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_a_window_without_a_broken_row_is_that_of_the_other_rows(work: Path, run: runs.Run) -> None:
    """The gradient of a step from which rows were dropped, by one process or two: that of rows that never had them."""
    config = load(run.config())
    _, encoder = start_model(config)
    folder = Path(run.manifest()["data"]["folder"])
    rows = encode_examples(read_examples(folder / "train.jsonl"), encoder, 1024)
    film = rows.encoded[0].media[0]
    gone = [index for index, row in enumerate(rows.encoded) if film in row.media]
    left = [row for index, row in enumerate(rows.encoded) if index not in gone]
    schedule = Schedule.of(config, len(rows.encoded), 1)
    whole = replace(schedule, micro_batch_size=len(rows.encoded))
    wanted = Windows(left, replace(whole, rows=len(left)), Packing.rows, 0).build(0)
    for count in (1, 2):
        broken = BrokenRows(train=rows)
        broken.add(BrokenMedia(film, "is gone"))
        made = [
            Windows(rows.encoded, whole, Packing.rows, 0, rank=rank, world_size=count, broken=broken).build(0)
            for rank in range(count)
        ]
        assert wanted["supervised"] == made[0]["supervised"] - sum(window.get("broken", 0) for window in made)
        shown = sum(len(batch["targets"]) for window in made for batch in window["micro_batches"])
        assert shown == sum(len(batch["targets"]) for batch in wanted["micro_batches"])
    with pytest.raises(UserError, match="no row can be read any more"):
        for row in left:
            broken.add(BrokenMedia(row.media[0], "is gone"))
    assert Windows(rows.encoded, whole, Packing.rows, 0, broken=broken).build(0)["micro_batches"] == []


def test_full_training_leaves_the_released_layout(work: Path) -> None:
    run = run_here(work, "train", *words(work, "adapter=none", "adapter.vision=full", "trainer.max_epochs=1"))
    state = load_file(run.folder / "model" / "model.safetensors")
    assert any(name.startswith("model.mm_projector.") for name in state)
    assert run.manifest()["media_cache"]["kept"] == "frames"
    with RunModel(run, load(run.config())).system("tuned") as tuned:
        assert tuned.config.model_type == "MobileVideoGPT_qwen"


def test_nothing_is_kept_where_nothing_may_be(work: Path, run: runs.Run) -> None:
    other = run_here(work, "train", *words(work, "trainer.media_cache_gb=0", f"cache_dir={work / 'cache'}"))
    assert "media_cache" not in other.manifest()
    one, two = curve(run, "train/loss"), curve(other, "train/loss")
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-5)
