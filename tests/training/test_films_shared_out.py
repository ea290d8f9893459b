"""Films with several processes and weights that are shared out: as in one process, after a kill too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fieldtune import runs
from fieldtune.config import Strategy
from fieldtune.errors import UserError
from fieldtune.models.loss import unwrapped
from fieldtune.models.run_model import start_model
from fieldtune.training.strategies import must_gather
from tests import forked
from tests.stages import compose, curve, run_here

from .test_film_stage import write_rows
from .test_shared_out import (
    COMMON,
    STRATEGIES,
    assert_goes_on,
    assert_moved,
    hardware,
    in_16_bits,
    same,
    told_without_deepspeed,
)

ZERO = ("deepspeed_zero2", "deepspeed_zero3")
PARTS = {
    "projectors whole": (),
    "projectors by LoRA": ("adapter.projector=lora",),
    "all but the towers": ("adapter=none",),
    "towers by LoRA": ("adapter.vision=lora", "adapter.vision_learning_rate=1e-4"),
    "towers whole": ("adapter.vision=full", "adapter.vision_learning_rate=1e-5"),
}
# Of the weights that PEFT and the projectors' file hold, none is a tower's.
RESULTS = ("adapter_model.safetensors", "projector.safetensors")

Train = Callable[..., runs.Run]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("films-shared-out")
    run_here(work, "prepare", *COMMON, f"data.path={write_rows(work / 'rows')}")
    return work


@pytest.fixture(scope="module")
def train(work: Path) -> Train:
    """Trains the tiny Mobile-VideoGPT, four rows a step, its layers computed again; each set of words once."""
    places = (f"data.path={work / 'rows' / 'rows.jsonl'}", f"cache_dir={work / 'cache'}")
    lengths = ("trainer.max_epochs=3", "trainer.max_steps=8", "trainer.eval_every=2", "trainer.sample_tokens=3")
    rates = ("trainer.learning_rate=1e-3", "adapter.projector_learning_rate=3e-4", "trainer.scheduler=cosine")
    common = (*COMMON, *places, "model=mobile_videogpt_tiny", "adapter=lora", "trainer=fit", *lengths, *rates)
    done: dict[tuple[str, ...], runs.Run] = {}

    def trained(strategy: str, *more: str, run_dir: Path | None = None, kill_at: int | None = None) -> runs.Run:
        sizes = ("trainer.micro_batch_size=1", f"trainer.accumulation={4 if strategy == 'cpu' else 2}")
        again = ("trainer.clip_norm=1", "trainer.activation_checkpointing=true")
        words = (*common, *sizes, *again, *(() if strategy == "cpu" else hardware(strategy)), *more)
        if run_dir is not None:
            return forked.train(work, *words, run_dir=run_dir, kill_at=kill_at)
        if (strategy, *more) not in done:
            done[strategy, *more] = run_here(work, "train", *words) if strategy == "cpu" else forked.train(work, *words)
        return done[strategy, *more]

    return trained


def states(run: runs.Run) -> dict[str, dict[str, torch.Tensor]]:
    """What is left of a run: its files of weights."""
    folders = (run.folder / name for name in ("adapter", "model"))
    return {path.name: load_file(path) for folder in folders for path in folder.glob("*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ("ddp_cpu", *STRATEGIES))
@pytest.mark.parametrize("parts", ("projectors whole", "projectors by LoRA", "all but the towers"))
def test_films_are_trained_as_in_one_process(train: Train, strategy: str, parts: str) -> None:
    one, other = (train(each, *PARTS[parts]) for each in ("cpu", strategy))
    same(one, other, 1e-4)
    wanted, found = states(one), states(other)
    assert found.keys() == wanted.keys() and ("projector.safetensors" in found) == (parts == "projectors whole")
    for name, state in wanted.items():
        assert {key: value.shape for key, value in found[name].items()} == {k: v.shape for k, v in state.items()}
        assert parts == "all but the towers" or not any("_tower" in key for key in state)
    assert other.manifest()["media_cache"]["kept"] == "looks"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ("fsdp2", "deepspeed_zero2"))
@pytest.mark.parametrize("parts", ("towers by LoRA", "towers whole"))
def test_towers_are_trained_as_in_one_process(train: Train, strategy: str, parts: str) -> None:
    one, other = (train(each, *PARTS[parts]) for each in ("cpu", strategy))
    same(one, other, 1e-4)
    assert states(other).keys() == states(one).keys()


def test_trained_towers_are_refused_where_they_would_be_left_away(tmp_path: Path) -> None:
    film = ("data=jsonl", "data.path=mine.jsonl", f"cache_dir={tmp_path}", "model=mobile_videogpt_tiny", "adapter=lora")
    model, _ = start_model(compose(tmp_path, "train", *film, *PARTS["towers by LoRA"]))
    must_gather(unwrapped(model), Strategy.zero2)
    with pytest.raises(UserError, match=r"zero3 does not put video_tower\.cls_token of a MobileVideoGPT_qwen together"):
        must_gather(unwrapped(model), Strategy.zero3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_stand_alone(train: Train, strategy: str) -> None:
    """Adapter and projectors are whole and have moved, the towers have not; read where DeepSpeed cannot be imported."""
    run = train(strategy)
    told = told_without_deepspeed(run.folder)
    assert told["answers"] == told_without_deepspeed(train("cpu").folder)["answers"]
    assert_moved(run, told, "mobile_videogpt")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ZERO)
def test_the_best_weights_are_kept_not_the_last(train: Train, strategy: str) -> None:
    far = ("trainer.learning_rate=1.0", "trainer.clip_norm=null", "trainer.scheduler=constant")
    run = train(strategy, *far, "trainer.eval_every=1", "trainer.max_steps=2")
    kept, losses = run.manifest()["steps"]["kept"], curve(run, "val/loss")
    assert 0 < kept < max(losses) and losses[kept] == min(losses.values())
    assert told_without_deepspeed(run.folder)["loss"] == pytest.approx(losses[kept], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_films_go_on_after_a_kill(train: Train, strategy: str, tmp_path: Path) -> None:
    whole = train(strategy)
    assert_goes_on(whole, lambda kill_at: train(strategy, run_dir=tmp_path, kill_at=kill_at))
    for name in RESULTS:
        one, other = (load_file(folder / "adapter" / name) for folder in (whole.folder, tmp_path))
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ZERO)
def test_a_projector_of_another_run_is_begun_with(train: Train, strategy: str, tmp_path: Path) -> None:
    given = shutil.copy(train("cpu").folder / "adapter" / "projector.safetensors", tmp_path / "given.safetensors")
    one, other = (train(each, f"model.projector={given}") for each in ("cpu", strategy))
    same(one, other, 1e-4)
    assert curve(one, "val/loss")[0] != curve(train("cpu"), "val/loss")[0]
    for run in (one, other):
        assert f"projector weights: {given}" in (run.folder / runs.LOG).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("gigabytes", (0, 1e-4))
def test_towers_look_while_it_trains(work: Path, train: Train, strategy: str, gigabytes: float, tmp_path: Path) -> None:
    """Nothing is kept, or so little that entries are made again by one rank alone."""
    run = train(strategy, f"trainer.media_cache_gb={gigabytes}", f"cache_dir={tmp_path}")
    same(train("cpu"), run, 1e-4)
    assert not gigabytes or run.manifest()["media_cache"]["made"] > len(list((work / "rows").rglob("*.mp4")))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_films_in_16_bits(train: Train, strategy: str) -> None:
    in_16_bits(train, strategy)
