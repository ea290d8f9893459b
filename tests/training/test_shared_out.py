"""Several processes with models that see, or with weights that are shared out: as one process, and after a kill too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fieldtune import runs
from fieldtune.ranks import Rank
from fieldtune.records import write_jsonl
from fieldtune.training.team import DeepSpeedTeam
from tests import forked
from tests.commands import ROOT
from tests.models.pictures import write_picture
from tests.stages import compose, curve, question_rows, run_here

from . import conftest

STRATEGIES = ("fsdp2", "deepspeed_zero2", "deepspeed_zero3")
ON_CPU = ("hardware.accelerator=cpu", "hardware.precision=fp32", "hardware.devices=2")
CURVES = ("train/loss", "val/loss", "train/gradient_norm")
COMMON = ("data=jsonl", "data.split=[0.6,0.2,0.2]", "tracking=off", "hardware.threads=1")
CUT = 6  # lines of metrics at which a run is killed: in the sixth step, or soon after
TOLD = r"""
import json, sys
sys.modules["deepspeed"] = None
from pathlib import Path
import torch
from fieldtune import datasets, runs
from fieldtune.data.load import load_split
from fieldtune.loading import load
from fieldtune.models.generate import Sampling, generate
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.run_model import RunModel, start_model
from fieldtune.models.scoring import mean_loss, row_losses
run = runs.open_run(Path(sys.argv[1]))
config = load(run.config())
models, start = RunModel(run, config), start_model(config)[0].get_base_model()
rows = load_split(datasets.prepared(config), "val", models.encoder, config.model.context_length)
with models.system("tuned") as tuned:
    there = tuned.get_base_model()
    moved = [n for n, p in start.named_parameters() if not torch.equal(p, there.get_parameter(n))]
    loss = mean_loss(row_losses(LanguageModelLoss(tuned), rows.encoded, 0, 4))
    prompts = [models.encoder.prompt(example.prompt) for example in rows.examples[:2]]
    answers = [one.text for one in generate(tuned, models.tokenizer, prompts, Sampling(4))]
print(json.dumps({"loss": loss, "moved": moved, "all": [n for n, _ in start.named_parameters()], "answers": answers}))
"""


def hardware(strategy: str) -> tuple[str, ...]:
    if strategy.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    return (f"hardware={strategy}", *(() if strategy == "ddp_cpu" else ON_CPU))


def same(one: runs.Run, other: runs.Run, tolerance: float) -> None:
    for name in CURVES:
        wanted, found = curve(one, name), curve(other, name)
        assert found.keys() == wanted.keys() and len(found) > 2
        assert list(found.values()) == pytest.approx(list(wanted.values()), rel=tolerance), name


def write_rows(folder: Path) -> Path:
    """Two questions about each of ten pictures, and eight rows of text alone: some passes show no picture."""
    folder.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for number in range(10):
        write_picture(folder / f"{number}.png", (60 + number, 60), number)
        for question in ("How tall is it?", "Which number is it?"):
            asked = [{"type": "image", "path": f"{number}.png"}, {"type": "text", "text": question}]
            answer = f"It is {60 + number if 'tall' in question else number}."
            lines.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
    write_jsonl(folder / "rows.jsonl", [*lines, *question_rows(8)])
    return folder / "rows.jsonl"


Train = Callable[..., runs.Run]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains a small model that sees, four rows a step, each set of words once."""
    work = tmp_path_factory.mktemp("shared-out")
    rows = write_rows(work / "rows")
    run_here(work, "prepare", *COMMON, f"data.path={rows}")
    common = (*COMMON, f"data.path={rows}", f"cache_dir={work / 'cache'}", "adapter=lora", "trainer=fit")
    lengths = ("trainer.max_epochs=3", "trainer.max_steps=8", "trainer.eval_every=2", "trainer.sample_tokens=3")
    rates = ("trainer.learning_rate=1e-3", "adapter.projector_learning_rate=3e-4", "trainer.scheduler=cosine")
    done: dict[tuple[str, ...], runs.Run] = {}

    def trained(strategy: str, *more: str, run_dir: Path | None = None, kill_at: int | None = None) -> runs.Run:
        sizes = ("trainer.micro_batch_size=1", f"trainer.accumulation={4 if strategy == 'cpu' else 2}")
        where = () if strategy == "cpu" else hardware(strategy)
        words = (*common, *lengths, *rates, *sizes, "trainer.clip_norm=1", *where, *more)
        if run_dir is not None:
            return forked.train(work, *words, run_dir=run_dir, kill_at=kill_at)
        if (strategy, *more) not in done:
            done[strategy, *more] = run_here(work, "train", *words) if strategy == "cpu" else forked.train(work, *words)
        return done[strategy, *more]

    return trained


def in_16_bits(train: Train, strategy: str, *words: str) -> None:
    """Losses of a strategy are near those of one process, both in bf16, which rounds to 3 digits."""
    one, other = (train(each, *words, "hardware.precision=bf16") for each in ("cpu", strategy))
    for name in ("train/loss", "val/loss"):
        assert list(curve(other, name).values()) == pytest.approx(list(curve(one, name).values()), rel=5e-3), name


LLAVA, QWEN = "model=llava_tiny", "model=qwen2vl_tiny"
PARTS = {
    "projector by LoRA": ("adapter.projector=lora",),
    "tower by LoRA": ("adapter.vision=lora", "adapter.vision_learning_rate=1e-4"),
    "tower whole": ("adapter.vision=full", "adapter.vision_learning_rate=1e-5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ("ddp_cpu", *STRATEGIES))
def test_a_model_that_sees_trains_as_in_one_process(train: Train, strategy: str) -> None:
    same(train("cpu", LLAVA), train(strategy, LLAVA), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("parts", PARTS)
def test_other_parts_are_trained_as_in_one_process(train: Train, strategy: str, parts: str) -> None:
    one, other = (train(each, QWEN, *PARTS[parts]) for each in ("cpu", strategy))
    same(one, other, 1e-4)
    files = [
        {path.name: load_file(path) for path in (run.folder / "adapter").glob("*.safetensors")} for run in (one, other)
    ]
    assert files[0].keys() == files[1].keys() and ("vision.safetensors" in files[0]) == (parts == "tower whole")
    for name, state in files[0].items():
        assert {key: value.shape for key, value in files[1][name].items()} == {k: v.shape for k, v in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_model_that_sees_trains_in_16_bits(train: Train, strategy: str) -> None:
    in_16_bits(train, strategy, LLAVA)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_stand_alone(train: Train, strategy: str) -> None:
    """Adapter and projector are whole and have moved, the tower has not; read where DeepSpeed cannot be imported."""
    run = train(strategy, LLAVA)
    for name in ("adapter_model.safetensors", "projector.safetensors"):
        wanted, found = (load_file(each.folder / "adapter" / name) for each in (train("cpu", LLAVA), run))
        assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in wanted.items()}
    assert not (run.folder / "adapter" / "vision.safetensors").exists()
    told = told_without_deepspeed(run.folder)
    assert len(told["answers"]) == 2
    assert_moved(run, told, "llava")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_model_that_sees_goes_on_after_a_kill(train: Train, strategy: str, tmp_path: Path) -> None:
    whole = train(strategy, LLAVA)
    assert_goes_on(whole, lambda kill_at: train(strategy, LLAVA, run_dir=tmp_path, kill_at=kill_at))
    for name in ("adapter_model.safetensors", "projector.safetensors"):
        one, other = (load_file(folder / "adapter" / name) for folder in (whole.folder, tmp_path))
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_text_model_goes_on_after_a_kill(work: Path, strategy: str, tmp_path: Path) -> None:
    """All of its weights are trained and shared out, and dropout draws from the random state of each rank."""
    rates = ("trainer.scheduler=cosine", "trainer.clip_norm=1", "model.dropout=0.1", "trainer.packing=none")
    words = conftest.words(work, *rates, "trainer.max_epochs=5", "trainer.eval_every=2", *hardware(strategy))
    whole = forked.train(work, *words)
    assert_goes_on(whole, lambda kill_at: forked.train(work, *words, run_dir=tmp_path, kill_at=kill_at))
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole.folder, tmp_path))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_offloading_is_asked_for(tmp_path: Path) -> None:
    """All that can be seen of it without a GPU: what DeepSpeed is told."""
    pytest.importorskip("deepspeed")
    from fieldtune.training.deepspeed import make_strategy

    words = ("data=jsonl", "data.path=mine.jsonl", "model=gpt2_tiny", "adapter=none")
    config = compose(tmp_path, "train", *words, "hardware=deepspeed_zero3_offload")
    strategy: Any = make_strategy(config, DeepSpeedTeam(Rank(), torch.device("cpu")))
    zero = strategy.config["zero_optimization"]
    assert zero["stage"] == 3 and zero["offload_param"]["device"] == zero["offload_optimizer"]["device"] == "cpu"
    assert strategy.config["zero_force_ds_cpu_optimizer"] is False


def assert_moved(run: runs.Run, told: dict[str, Any], name: str) -> None:
    """What `told_without_deepspeed` told is of the best weights: adapter and projectors have moved, towers have not."""
    assert told["loss"] == pytest.approx(run.manifest()["metrics"]["val/best_loss"], rel=1e-5)
    assert any("lora_B" in name for name in told["moved"])
    assert {name for name in told["all"] if "projector" in name} <= set(told["moved"])
    assert not any("_tower" in name or "base_layer" in name for name in told["moved"])
    assert f"projector weights: from the base checkpoint, tiny:{name}" in (run.folder / runs.LOG).read_text()


@cache
def told_without_deepspeed(folder: Path) -> dict[str, Any]:
    """What a process that cannot import DeepSpeed finds in the folder of a finished run."""
    command = [sys.executable, "-c", TOLD, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def assert_goes_on(whole: runs.Run, attempt: Callable[[int | None], runs.Run]) -> None:
    """A run that is killed in the middle goes on from a checkpoint in the middle: every later number is bit-equal."""
    cut = attempt(CUT)
    assert cut.status == "unfinished" and list(cut.folder.glob("checkpoints/step-*/complete.json"))
    again = attempt(None)
    last = max(curve(whole, "train/loss"))
    steps = again.manifest()["steps"]
    assert steps["attempts"] == 2 and last < steps["executed"] < last + CUT
    for name in CURVES:
        assert curve(again, name) == curve(whole, name), name
