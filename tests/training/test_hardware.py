"""Several devices train as one does: same loss, same gradient norm, same weights, whatever share each of them has."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from peft import LoraConfig, get_peft_model
from pytorch_lightning.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor, nn

from fieldtune.config import Packing, Precision, TrainerConfig
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.errors import UserError
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.ranks import Rank
from fieldtune.runs import Run
from fieldtune.training.data_parallel import summed_over_replicas
from fieldtune.training.module import FineTuning
from fieldtune.training.team import ReplicaTeam, Team
from fieldtune.training.window import backward_window
from tests import forked
from tests.models.tiny import rows_alike, rows_of_lengths, tiny_gpt2, tiny_llama
from tests.stages import curve, lines_of, run_here

from .conftest import words

ODD = "data.split=[0.775,0.125,0.1]"  # 31 training rows: the last window of an epoch has one row in it
TWO = "hardware=ddp_cpu"
CPU = torch.device("cpu")
PACKING = Packing.shared_prefix


@pytest.fixture(scope="module")
def odd(work: Path) -> Path:
    run_here(work, "prepare", *words(work, ODD))
    return work


def settings(accumulation: int, *, processes: int) -> list[str]:
    """Thirty rows a step, or ten without accumulation, whatever the number of processes."""
    rows = (6 if accumulation > 1 else 10) // processes
    sizes = [f"trainer.micro_batch_size={rows}", f"trainer.accumulation={accumulation}"]
    return [ODD, *sizes, "trainer.learning_rate=1e-3", "trainer.clip_norm=1", "trainer.eval_every=2"]


def assert_same_training(one: Run, other: Run, tolerance: float) -> None:
    for name in ("train/loss", "val/loss", "train/gradient_norm"):
        found, wanted = curve(other, name), curve(one, name)
        assert list(found) == list(wanted) and len(found) > 2
        assert list(found.values()) == pytest.approx(list(wanted.values()), rel=tolerance), name
    assert [line["step"] for line in lines_of(other.folder / "metrics.jsonl")] == [
        *curve(one, "train/loss").keys() | {0}
    ]


@pytest.mark.parametrize("accumulation", [1, 5])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 2e-6), pytest.param("bf16", 5e-3, marks=pytest.mark.slow)]
)
def test_two_processes_train_as_one(odd: Path, accumulation: int, precision: str, tolerance: float) -> None:
    """Also where the last window of an epoch has one row: the other process has none and joins in."""
    kind = f"hardware.precision={precision}"
    one = run_here(odd, "train", *words(odd, *settings(accumulation, processes=1), kind))
    two = forked.train(odd, *words(odd, *settings(accumulation, processes=2), TWO, kind))
    assert_same_training(one, two, tolerance)
    weights = [load_file(run.folder / "model" / "model.safetensors") for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    distance = sum(float((weights[1][name] - value).norm()) for name, value in weights[0].items())
    assert distance <= 10 * tolerance * sum(float(value.norm()) for value in weights[0].values())


def test_an_adapter_on_two_processes(odd: Path) -> None:
    base = run_here(odd, "train", *words(odd, ODD, "trainer.max_steps=1", "trainer.eval_every=1"))
    adapter = ["adapter=lora", "adapter.rank=4", f"model.weights=run:{base.folder}"]
    one = run_here(odd, "train", *words(odd, *settings(1, processes=1), *adapter))
    two = forked.train(odd, *words(odd, *settings(1, processes=2), *adapter, TWO))
    assert_same_training(one, two, 5e-6)
    assert load_file(two.folder / "adapter" / "adapter_model.safetensors").keys()


def test_rank_zero_alone_writes_the_run(odd: Path) -> None:
    track = ["tracking=offline", "trainer.sample_rows=1", "trainer.sample_tokens=4", "trainer.max_steps=3"]
    run = forked.train(odd, *words(odd, ODD, TWO, *track))
    assert len(list(run.folder.glob("wandb/offline-run-*"))) == 1
    assert len(lines_of(run.folder / "samples.jsonl")) == 2  # after the epoch and after the last step
    assert {path.name for path in run.folder.glob("log*")} == {"log.txt", "log-rank-1.txt"}
    assert run.manifest()["steps"]["done"] == 3


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on(odd: Path) -> None:
    """Killed and started again, dropout included: every rank has its own random state."""
    long = words(
        odd, ODD, TWO, "model.dropout=0.1", "trainer.packing=none", "trainer.eval_every=5", "trainer.max_epochs=6"
    )
    whole = forked.train(odd, *long)
    folder = odd / "two-again"
    cut = forked.train(odd, *long, run_dir=folder, kill_at=8)
    assert cut.status == "unfinished" and list(folder.glob("checkpoints/step-*"))
    again = forked.train(odd, *long, run_dir=folder)
    for name in ("train/loss", "val/loss", "train/gradient_norm"):
        assert curve(again, name) == curve(whole, name), name
    weights = [load_file(run.folder / "model" / "model.safetensors") for run in (whole, again)]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())


# --- DataParallel ---------------------------------------------------------------------------------------------

LENGTHS = [5, 31, 12, 7, 3, 28, 17]


def lora_llama() -> nn.Module:
    return get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama, lora_llama])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("devices", [2, 3])
def test_replicas_have_the_gradients_of_one(make: object, dtype: torch.dtype, tolerance: float, devices: int) -> None:
    """Micro-batches of unequal token counts, and a last group that is smaller than the team."""
    network = LanguageModelLoss(make().to(dtype))  # type: ignore[operator]
    results = []
    for team in (Team(), ReplicaTeam([CPU] * devices)):
        network.zero_grad(set_to_none=True)
        windows = Windows(rows_alike(), Schedule(9, 2, 5, 1, 1, None), PACKING, 0, trunk=team.keeps_trunk)
        total = float(backward_window(network, windows.build(0), Tensor.backward, team))
        results.append((total, {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}))
    (wanted_loss, wanted), (found_loss, found) = results
    assert found_loss == pytest.approx(wanted_loss, rel=tolerance)
    assert found.keys() == wanted.keys() and wanted
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


def test_replicas_keep_the_type_of_autocast() -> None:
    network = LanguageModelLoss(tiny_gpt2())
    window = Windows(rows_of_lengths(LENGTHS), Schedule(7, 4, 2, 1, 1, None), PACKING, 0).build(0)
    seen: list[torch.dtype] = []
    layer = network.model.get_submodule("transformer.h.0.mlp.c_fc")
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        together = summed_over_replicas(network, window["micro_batches"], [CPU, CPU])
        apart = sum(float(network(**batch)[0].detach()) for batch in window["micro_batches"])
    assert set(seen) == {torch.bfloat16} and float(together.detach()) == pytest.approx(apart, rel=1e-6)


def test_an_error_in_a_replica_reaches_the_caller() -> None:
    window = Windows(rows_of_lengths(LENGTHS), Schedule(7, 4, 2, 1, 1, None), PACKING, 0).build(0)
    window["micro_batches"][1]["ids"] = window["micro_batches"][1]["ids"] + 1000
    with pytest.raises(IndexError):
        summed_over_replicas(LanguageModelLoss(tiny_gpt2()), window["micro_batches"], [CPU, CPU])


class Told(pl.Callback):
    """What each optimizer step told, and the weights after it."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: FineTuning, outputs: dict[str, float], *_: object
    ) -> None:
        self.steps.append({**outputs, "norm": module.gradient_norm})
        self.weights.append({name: p.detach().clone() for name, p in module.network.named_parameters()})


def train(
    team: Team,
    micro: int,
    accumulation: int,
    *,
    precision: Precision = Precision.fp32,
    plugin: MixedPrecision | None = None,
    bad_steps: frozenset[int] = frozenset(),
    **more: object,
) -> Told:
    """Train a tiny GPT-2 for 3 epochs of 7 rows by the real module; at bad steps a gradient is made infinite."""
    trainer = TrainerConfig(learning_rate=1e-3, clip_norm=1.0, **more)  # type: ignore[arg-type]
    replicas = len(team.devices) if isinstance(team, ReplicaTeam) else 1
    schedule = Schedule(7, micro, accumulation, seed=1, max_epochs=3, max_steps=None, replicas=replicas)
    module = FineTuning(LanguageModelLoss(tiny_gpt2()), trainer, precision, schedule.total_steps, team)
    weight = module.network.model.transformer.h[0].mlp.c_fc.weight
    weight.register_hook(lambda gradient: gradient * float("inf") if len(told.steps) in bad_steps else gradient)
    told = Told()
    pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[told],
        plugins=[plugin] if plugin else None,
    ).fit(module, Windows(rows_of_lengths(LENGTHS), schedule, PACKING, 0))
    return told


@pytest.mark.parametrize("accumulation", [1, 4])
def test_replicas_train_as_one_device(accumulation: int) -> None:
    one = train(Team(), 2, accumulation)
    two = train(ReplicaTeam([CPU, CPU]), 1, accumulation)
    assert len(one.steps) == len(two.steps) > 2
    for wanted, found in zip(one.steps, two.steps, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


def half() -> MixedPrecision:
    """Lightning's own fp16 plugin with torch's scaler for the CPU; on a GPU the Trainer makes the same."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("replicas", [1, 2])
def test_fp16_gradients_are_unscaled_before_they_are_clipped(accumulation: int, replicas: int) -> None:
    """Clipped while scaled by 4,096 they would be almost nothing, and the norm 4,096 times too big."""
    wanted = train(Team(), 2, accumulation)
    team = ReplicaTeam([CPU] * replicas) if replicas > 1 else Team()
    found = train(team, 2 // replicas, accumulation, precision=Precision.fp16, plugin=half())
    for step, other in zip(wanted.steps, found.steps, strict=True):
        assert other["train/loss"] == pytest.approx(step["train/loss"], rel=2e-3)
        assert other["norm"] == pytest.approx(step["norm"], rel=2e-2)


# --- gradients that are not finite ------------------------------------------------------------------------------


@pytest.mark.parametrize("fp16", [False, True])
def test_a_step_with_an_infinite_gradient_changes_nothing(fp16: bool) -> None:
    bad = frozenset({2, 3})
    kind = {"precision": Precision.fp16, "plugin": half()} if fp16 else {}
    told = train(Team(), 2, 1, bad_steps=bad, **kind)  # type: ignore[arg-type]
    assert [step["train/skipped_steps"] for step in told.steps[:6]] == [0, 0, 1, 2, 2, 2]
    for number, (before, after) in enumerate(zip(told.weights, told.weights[1:], strict=False), 1):
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (number in bad)
    assert all(bool(torch.isfinite(value).all()) for value in told.weights[-1].values())
    if fp16:
        assert kind["plugin"].scaler.get_scale() == 2.0**10  # halved at each of the two


def test_bad_steps_in_a_row_stop_a_run() -> None:
    with pytest.raises(UserError, match=r"^3 optimizer steps in a row had gradients .*step 7; give .*learning_rate"):
        train(Team(), 2, 1, bad_steps=frozenset({1, 2, 4, 5, 6, 7}), stop_after_bad_steps=3)
    told = train(Team(), 2, 1, bad_steps=frozenset({1, 2, 4, 5}), stop_after_bad_steps=3)
    assert told.steps[-1]["train/skipped_steps"] == 4


EXPLODING = ("trainer.learning_rate=10", "trainer.weight_decay=10", "trainer.max_epochs=30", "trainer.eval_every=1000")


@pytest.mark.parametrize("kind", ["hardware=cpu", TWO])
def test_a_learning_rate_that_is_too_high_ends_in_one_line(odd: Path, kind: str) -> None:
    """Weights grow a hundredfold at each step, until nothing is finite any more."""
    told = r"10 optimizer steps in a row had gradients that are not finite.*lower trainer\.learning_rate"
    with pytest.raises(UserError, match=told):
        forked.train(odd, *words(odd, ODD, *EXPLODING, kind))


def test_skipped_steps_stand_in_the_manifest(odd: Path) -> None:
    run = run_here(odd, "train", *words(odd, ODD, *EXPLODING, "trainer.stop_after_bad_steps=1000"))
    skipped = curve(run, "train/skipped_steps")
    assert run.manifest()["steps"]["skipped"] == max(skipped.values()) > 10


def test_a_team_of_one_needs_no_process_group() -> None:
    team = Team(Rank(), CPU)
    network = LanguageModelLoss(copy.deepcopy(tiny_gpt2()))
    assert team.of_every_rank(3) == [3] and team.sum(torch.tensor(2.0)) == 2.0
    assert team.share([1, 2, 3]) == [1, 2, 3]
    assert team.trained_state(network).keys() == dict(network.named_parameters()).keys()
