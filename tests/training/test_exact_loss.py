"""The loss and every gradient are those of a plain loop over the whole optimizer step, whatever the micro-batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from fieldtune.config import Packing, Precision, TrainerConfig
from fieldtune.data.encode import Encoded
from fieldtune.data.packing import pack_window
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.data.trie import fewest_tokens
from fieldtune.models import cross_entropy
from fieldtune.models.fused import FusedLlamaRMSNorm
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.scoring import mean_loss, row_losses
from fieldtune.training.window import backward_window
from tests.models.tiny import lora_gpt2, lora_llama, rows_alike, rows_of_lengths, tied_llama, tiny_gpt2, tiny_llama

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


def our_gradients(
    model: nn.Module, rows: list[Encoded], micro: int, packing: Packing = Packing.shared_prefix
) -> tuple[float, dict[str, Tensor]]:
    schedule = Schedule(len(rows), micro, accumulation=99, seed=1, max_epochs=1, max_steps=None)
    window = Windows(rows, schedule, packing, pad_id=0).ready(0)
    total = float(backward_window(LanguageModelLoss(model), window, Tensor.backward))
    trained = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total / window["supervised"], trained


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


def in_fp64(make: Make) -> nn.Module:
    """transformers' RMSNorm always rounds to fp32; ours, held against it in tests/models/test_fused.py, does not."""
    model = make().double()
    for module in model.modules():
        if type(module) is LlamaRMSNorm:
            module.__class__ = FusedLlamaRMSNorm
    return model


MAKES = [tiny_gpt2, tiny_llama, tied_llama, lora_llama, lora_gpt2]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("micro", [1, 2, 4, 9])
def test_every_packing_equals_the_plain_loop_in_fp64(make: Make, packing: Packing, micro: int) -> None:
    rows = rows_alike()
    wanted_loss, wanted = plain_gradients(in_fp64(make), rows)
    found_loss, found = our_gradients(in_fp64(make), rows, micro, packing)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-12)
    assert_equal(found, wanted, 1e-10)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("rows", [rows_alike(), rows_of_lengths(LENGTHS)])
def test_every_packing_equals_the_plain_loop(make: Make, packing: Packing, rows: list[Encoded]) -> None:
    wanted_loss, wanted = plain_gradients(make(), rows)
    found_loss, found = our_gradients(make(), rows, 4, packing)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-5)
    assert_equal(found, wanted, 1e-5)


@pytest.mark.parametrize("make", [tiny_gpt2, tied_llama])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_micro_batch_that_shares_nothing_leaves_the_trunk_as_it_is(make: Make, micro: int) -> None:
    """Rows that begin otherwise stand before, between and after those that have a trunk in common."""
    rows = [*rows_alike(), *rows_of_lengths([11, 6, 14, 9], seed=5)]
    trunk, alone = (pack_window(some, micro, share=True)["trunk"] for some in (rows, rows_alike()))
    assert trunk["ids"].tolist() == alone["ids"].tolist()
    wanted_loss, wanted = plain_gradients(in_fp64(make), rows)
    found_loss, found = our_gradients(in_fp64(make), rows, micro)
    assert found_loss == pytest.approx(wanted_loss, rel=1e-12)
    assert_equal(found, wanted, 1e-10)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
@pytest.mark.parametrize("micro", [2, 9])
def test_mixed_precision_is_as_close_as_its_rounding(make: Make, micro: int) -> None:
    rows = rows_alike()
    wanted_loss, wanted = plain_gradients(make(), rows)
    with torch.autocast("cpu", torch.bfloat16):
        found_loss, found = our_gradients(make(), rows, micro)
    assert found_loss == pytest.approx(wanted_loss, rel=0.01)
    assert_equal(found, wanted, 0.1)


def test_a_shared_beginning_is_computed_once_a_window() -> None:
    rows = rows_alike()
    fewest = fewest_tokens([row.ids[: row.inputs] for row in rows])
    for micro in (1, 2, 4, 9):
        window = pack_window(rows, micro, share=True)
        assert fewest <= window["computed"] <= 1.05 * fewest
        assert window["tokens"] == sum(len(row.ids) for row in rows)
        assert (window["trunk"] is None) == (micro == 9)
    apart = pack_window(rows, 4, share=False)
    assert apart["computed"] == sum(row.inputs for row in rows)


def test_a_process_without_a_row_has_an_empty_window() -> None:
    assert pack_window([], 4, share=True)["micro_batches"] == []


def test_memory_is_that_of_the_trunk_and_one_micro_batch() -> None:
    """Each row of a window is in one micro-batch, and no micro-batch repeats what stands in the trunk."""
    window = pack_window(rows_alike(), 3, share=True)
    assert len(window["micro_batches"]) == 3 and window["trunk"] is not None
    assert all(batch["ids"].numel() < window["computed"] for batch in window["micro_batches"])


@pytest.mark.parametrize("make", MAKES)
def test_logits_in_a_pack_are_those_alone(make: Make) -> None:
    rows = rows_alike()
    for packing in Packing:
        model = in_fp64(make).eval()
        together = row_losses(LanguageModelLoss(model), rows, 0, 4, packing)
        for row, (value, count) in zip(rows, together, strict=True):
            alone, _ = plain_gradients(model, [row])
            assert value / count == pytest.approx(alone, rel=1e-12)


def test_chunked_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of_lengths(LENGTHS)
    whole_loss, whole = our_gradients(tiny_gpt2().double(), rows, 7)
    monkeypatch.setattr(cross_entropy, "POSITIONS_PER_CHUNK", 5)
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
