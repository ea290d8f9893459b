"""Bad configurations, as a user meets them: exit status 2, a clear line, no traceback, no litter, no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(root: Path, folder: Path, stage: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A script run from another folder, as a new process; torch cannot be imported in it."""
    code = (
        "import sys, runpy; sys.modules['torch'] = None; "
        f"sys.argv[0] = {stage + '.py'!r}; runpy.run_path({str(root / (stage + '.py'))!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, timeout=60)


UNPREPARED = "the data set of this configuration is not prepared; run prepare.py"

TYPO = "trainer.learing_rate is not a key of the configuration; did you mean trainer.learning_rate?"

BAD: list[tuple[str, list[str], str]] = [
    ("train", ["trainer.learing_rate=1"], TYPO),
    ("train", ["+trainer.learing_rate=1"], "did you mean trainer.learning_rate?"),
    ("train", ["+seeed=1"], "seeed is not a key of the configuration; did you mean seed?"),
    ("train", ["seeed=1"], "seeed is not a key of the configuration; did you mean seed?"),
    ("train", ["trainer.max_steps=many"], "allowed: a whole number or null"),
    ("train", ["trainer.learning_rate=fast"], "allowed: a number"),
    ("train", ["evaluation.base=perhaps"], "allowed: true or false"),
    ("train", ["hardware.precision=fp8"], "allowed: fp32 | bf16 | fp16"),
    ("train", ["trainer.micro_batch_size=0"], "trainer.micro_batch_size=0 is out of range; allowed: 1 or more"),
    ("train", ["model.dropout=1.5"], "model.dropout=1.5 is out of range; allowed: 0 to 0.9"),
    ("train", ["model=gpt2_124"], "model=gpt2_124 is not a choice; did you mean gpt2_124m?"),
    ("train", ["experiment=golf_gtp2"], "did you mean golf_gpt2?"),
    ("train", ["modle=gpt2_tiny"], "did you mean model?"),
    ("train", ["bad words"], "cannot read the override"),
    ("train", ["experiment=golf_gpt2", "model.context_length=2048"], "more than a GPT-2's 1024 positions"),
    ("train", ["data=jsonl"], "data.path is not set"),
    ("prepare", ["data=jsonl", "data.path=absent.jsonl"], "data.path=absent.jsonl does not exist"),
    ("prepare", ["data.split=[0.5,0.5,0.5]"], "add up to 1"),
    ("prepare", ["data.count=-4"], "data.count=-4 is out of range"),
    ("prepare", ["data.knowledge=nowhere"], "data.knowledge=nowhere does not exist"),
    ("train", [], UNPREPARED),
    ("train", ["experiment=golf_gpt2"], UNPREPARED),
    ("train", ["model.weights=somewhere"], "is not a source of weights; allowed: random | tiny:FAMILY | hub:"),
    ("train", ["model.weights=folder:/nowhere"], "there is no folder /nowhere"),
    ("train", ["model=gpt2_124m", "model.weights=openai:125M"], "allowed: openai:124M"),
    ("train", ["model.revision=main"], "model.revision=main is for hub weights"),
    ("train", ["hardware.precision=fp16"], "needs a GPU"),
    ("train", ["adapter=none", "adapter.targets=[q_proj]"], "needs adapter=lora"),
    ("train", ["trainer.warmup_steps=60"], "leaves no step"),
    ("train", ["run=latest"], "is for evaluate.py"),
    ("train", ["name=a/b"], "cannot end a folder's name"),
    ("evaluate", [], "no finished run of golf_demo"),
    ("evaluate", ["run=latest"], "no finished train run in outputs"),
    ("evaluate", ["run=outputs/nothing"], "is not a run folder"),
    ("evaluate", ["run=latest", "model=gpt2_tiny"], "cannot be given with run="),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "words", "expected"), BAD, ids=[" ".join([s, *w]) for s, w, _ in BAD])
def test_bad_input_is_one_clear_line(root: Path, tmp_path: Path, stage: str, words: list[str], expected: str) -> None:
    done = run(root, tmp_path, stage, *words)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert 1 <= len(done.stderr.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


def test_every_problem_is_told_at_once(root: Path, tmp_path: Path) -> None:
    done = run(root, tmp_path, "train", "trainer.betas=[0.9]", "adapter.rank=0", "data.split=[1,1,1]")
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate"])
def test_help_names_groups_keys_and_examples(root: Path, tmp_path: Path, stage: str) -> None:
    done = run(root, tmp_path, stage, "--help")
    assert done.returncode == 0
    for word in ("experiment: ", "golf_demo", "learning_rate", f"python {stage}.py", "docs/configuration.md"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_cfg_job_and_info_work_as_hydra_users_know_them(root: Path, tmp_path: Path) -> None:
    shown = run(root, tmp_path, "train", "--cfg", "job", "experiment=golf_gpt2", "model=gpt2_355m")
    assert shown.returncode == 0 and "name: gpt2_355m" in shown.stdout
    assert run(root, tmp_path, "train", "--info", "defaults").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_shell_completion_offers_choices(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(root / "train.py"), "-sc", "query=bash"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"COMP_LINE": "train.py model=gpt2_", "COMP_POINT": "20", "PATH": "/usr/bin:/bin"},
        timeout=60,
    )
    assert "model=gpt2_tiny" in done.stdout.split()


def test_a_sweep_tells_each_job_and_ends_with_the_worst_status(root: Path, tmp_path: Path) -> None:
    done = run(root, tmp_path, "train", "--multirun", "seed=1,2")
    assert done.returncode == 2
    assert done.stderr.count(UNPREPARED) == 2 and "Traceback" not in done.stderr
    done = run(root, tmp_path, "train", "--multirun", "seed=1,2", "run_dir=here")
    assert "run_dir= cannot be given with --multirun" in done.stderr
