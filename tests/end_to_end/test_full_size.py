"""GPT-2 in the shape of 124M, in fp32 on the CPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fieldtune.runs import find_run

from ..stages import curve, succeed


@pytest.mark.slow
def test_three_steps_of_124m_from_random_weights(tmp_path: Path) -> None:
    words = ["experiment=golf_gpt2", "model=gpt2_124m", "model.weights=random", "tracking=off", "data.count=24"]
    succeed(tmp_path, "prepare", *words)
    succeed(tmp_path, "train", *words, "trainer.max_steps=3", "trainer.micro_batch_size=2", "trainer.sample_tokens=4")
    run = find_run(tmp_path / "outputs", "latest")
    manifest = run.manifest()
    assert manifest["model"]["parameters"] == manifest["model"]["trainable_parameters"] == 124_439_808
    losses = curve(run, "val/loss")
    assert losses[0] == pytest.approx(math.log(50257), abs=0.5) and losses[3] < losses[0]
    assert (run.folder / "gpt2-124M-golf-feedback.pth").stat().st_size > 4 * (124_439_808 + 50257 * 768)
    assert (run.folder / "loss_plot_124M.pdf").exists()
