"""The loss and every gradient are those of a plain loop over the whole optimizer step, whatever the micro-batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fieldtune.config import Precision, TrainerConfig
from fieldtune.data.batches import Schedule, Windows
from fieldtune.data.encode import Encoded
from fieldtune.models import loss as loss_module
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.scoring import mean_loss, row_losses
from tests.models.tiny import rows_of_lengths, tiny_gpt2, tiny_llama

LENGTHS = [5, 31, 12, 7, 3, 28, 17]  # seven rows: the last window of accumulation is short

Make = Callable[[], nn.Module]


def plain_gradients(model: nn.Module, rows: list[Encoded]) -> tuple[float, dict[str, Tensor]]:
    """One row at a time, no padding, transformers' own full logits: the reference."""
    total, count = torch.zeros(()), 0
    for row in rows:
        ids = torch.from_numpy(row.ids).long()[None]
        logits = model(input_ids=ids).logits[0, :-1]
        labels = torch.where(torch.from_numpy(row.trained[1:]), ids[0, 1:], -100)
        total = total + nn.functional.cross_entropy(logits, labels, reduction="sum")
        count += int(row.trained[1:].sum())
    mean = total / count
    mean.backward()
    return float(mean.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def our_gradients(model: nn.Module, rows: list[Encoded], micro: int) -> tuple[float, dict[str, Tensor]]:
    schedule = Schedule(len(rows), micro, accumulation=99, seed=1, max_epochs=1, max_steps=None)
    window = Windows(rows, schedule, pad_id=0).build(0)
    network = LanguageModelLoss(model)
    total = 0.0
    for batch in window["micro_batches"]:
        loss_sum, count = network(**batch)
        assert int(count) == len(batch["targets"])
        (loss_sum / window["supervised"]).backward()
        total += float(loss_sum.detach())
    return total / window["supervised"], {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
@pytest.mark.parametrize("micro", [1, 2, 3, 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_micro_batches_equal_the_plain_loop(make: Make, micro: int, dtype: torch.dtype, tolerance: float) -> None:
    rows = rows_of_lengths(LENGTHS)
    wanted_loss, wanted = plain_gradients(make().to(dtype), rows)
    found_loss, found = our_gradients(make().to(dtype), rows, micro)
    assert found_loss == pytest.approx(wanted_loss, rel=tolerance)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


def test_chunked_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of_lengths(LENGTHS)
    whole_loss, whole = our_gradients(tiny_gpt2().double(), rows, 7)
    monkeypatch.setattr(loss_module, "POSITIONS_PER_CHUNK", 5)
    chunked_loss, chunked = our_gradients(tiny_gpt2().double(), rows, 7)
    assert chunked_loss == pytest.approx(whole_loss, rel=1e-12)
    for name, gradient in whole.items():
        assert torch.allclose(chunked[name], gradient, rtol=1e-10, atol=1e-14), name


def test_row_losses_are_those_of_the_rows_alone() -> None:
    rows, model = rows_of_lengths(LENGTHS), tiny_gpt2().double()
    together = row_losses(LanguageModelLoss(model), rows, 0, 3)
    for row, (value, count) in zip(rows, together, strict=True):
        alone, _ = plain_gradients(model, [row])
        assert value / count == pytest.approx(alone, rel=1e-9)
    assert mean_loss(together) == pytest.approx(plain_gradients(model, rows)[0], rel=1e-9)


def test_learning_rate_warms_up_and_falls() -> None:
    from fieldtune.config import Scheduler
    from fieldtune.training.module import FineTuning

    settings = TrainerConfig(warmup_steps=4, scheduler=Scheduler.cosine)
    module = FineTuning(LanguageModelLoss(tiny_gpt2()), settings, Precision.fp32, steps=12)
    rates = [module.rate_factor(step) for step in range(13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and rates[8] == pytest.approx(0.5) and rates[12] == pytest.approx(0.0)
    settings.scheduler = Scheduler.linear
    assert module.rate_factor(6) == pytest.approx(0.75)
    settings.scheduler = Scheduler.constant
    assert module.rate_factor(11) == 1.0
