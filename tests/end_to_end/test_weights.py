"""Where a run's weights may come from: every route gives the model that it says, and a bad one gives one line."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from fieldtune.errors import UserError
from fieldtune.models.run_model import start_model
from fieldtune.models.tokenizer import Gpt2Tokenizer

from ..malicious import Malicious
from ..models.servers import Served, serve_hub
from ..models.test_gpt2_openai import tf_variables
from ..models.test_tf_bundle import write_bundle
from ..stages import compose, curve, question_rows, run_command, run_here, write_rows

HPARAMS = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 64, "n_head": 2, "n_layer": 2}
SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 64}
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(5)
    return GPT2LMHeadModel(GPT2Config(**SMALL))


@pytest.fixture(scope="module")
def hub_folder(model: GPT2LMHeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the hub's form, with its tokenizer."""
    folder = tmp_path_factory.mktemp("hub")
    model.save_pretrained(folder)
    Gpt2Tokenizer().save(folder)
    return folder


@pytest.fixture
def folder(hub_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(hub_folder, tmp_path / "model"))


def started(tmp_path: Path, weights: str, *words: str) -> Any:
    """The model that a run of such weights starts from."""
    config = compose(tmp_path, "train", "model=gpt2_tiny", "adapter=none", f"model.weights={weights}", *words)
    return start_model(config)[0]


def refusal(tmp_path: Path, weights: str, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        started(tmp_path, weights, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(found: Any, wanted: GPT2LMHeadModel) -> None:
    state = found.state_dict()
    assert all(torch.equal(state[name], value) for name, value in wanted.state_dict().items())


def test_a_folder_in_the_hubs_form(folder: Path, tmp_path: Path, model: GPT2LMHeadModel) -> None:
    assert_same(started(tmp_path, f"folder:{folder}"), model)
    dropping = started(tmp_path, f"folder:{folder}", "model.dropout=0.25")
    assert dropping.config.resid_pdrop == dropping.transformer.h[0].attn.attn_dropout.p == 0.25
    family = ["model=smollm2_135m", "model.template=alpaca", "model.context_length=1024"]
    assert_same(started(tmp_path, f"folder:{folder}", *family), model)


def test_half_precision_weights_are_trained_in_fp32(folder: Path, tmp_path: Path, model: GPT2LMHeadModel) -> None:
    GPT2LMHeadModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert {parameter.dtype for parameter in started(tmp_path, f"folder:{folder}").parameters()} == {torch.float32}


def test_openais_checkpoint_in_a_folder(tmp_path: Path, model: GPT2LMHeadModel) -> None:
    write_bundle(tmp_path / "model.ckpt", tf_variables(model.state_dict()))
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS))
    assert_same(started(tmp_path, f"folder:{tmp_path}"), model)
    assert "have another shape than model=gpt2_tiny: n_layer 2 (wanted 3)" in refusal(
        tmp_path, f"folder:{tmp_path}", "model.layers=3"
    )


def test_random_weights_are_those_of_the_seed(tmp_path: Path) -> None:
    first = started(tmp_path, "random", "seed=3")
    assert_same(started(tmp_path, "random", "seed=3"), first)
    assert not torch.equal(started(tmp_path, "random", "seed=4").lm_head.weight, first.lm_head.weight)


@pytest.mark.slow
def test_a_hub_model_from_data_to_evaluation(hub_folder: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in hub_folder.iterdir()}
    write_rows(tmp_path / "rows.jsonl", question_rows(20))
    words = ["data=jsonl", "data.path=rows.jsonl", "model=gpt2_tiny", "adapter=none", "tracking=off", "trainer=fit"]
    steps = ["model.weights=hub:owner/tiny", "trainer.max_steps=1", "trainer.sample_rows=0", "hardware.threads=1"]
    with serve_hub(Served(files, lfs={WEIGHTS: hashlib.sha256(files[WEIGHTS]).hexdigest()})) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": None}
        assert run_command(tmp_path, "prepare", *words).returncode == 0
        done = run_command(tmp_path, "train", *words, *steps, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        steps[0] = "model.weights=hub:owner/absent"
        absent = run_command(tmp_path, "train", *words, *steps, environment=environment)
    assert absent.returncode == 2 and "there is no model owner/absent at" in absent.stdout + absent.stderr
    assert "Traceback" not in absent.stdout + absent.stderr
    (run,) = (
        path.parent for path in (tmp_path / "outputs").glob("*/*/manifest.json") if (path.parent / "model").exists()
    )
    words = [*words[:1], f"data.path={tmp_path / 'rows.jsonl'}", *words[2:]]
    run_here(tmp_path, "prepare", *words)
    steps[0] = f"model.weights=folder:{hub_folder}"
    same = run_here(tmp_path, "train", *words, *steps)
    assert curve(run, "val/loss")[0] == pytest.approx(curve(same, "val/loss")[0], rel=1e-6)


def test_another_shape_is_one_line(folder: Path, tmp_path: Path) -> None:
    line = refusal(tmp_path, f"folder:{folder}", "model.width=128", "model.heads=4")
    assert "have another shape than model=gpt2_tiny: n_head 2 (wanted 4), n_embd 64 (wanted 128)" in line


def test_a_vocabulary_too_small_for_the_tokenizer_is_one_line(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=300, **SMALL)).save_pretrained(tmp_path / "small")
    assert "300" in refusal(tmp_path, f"folder:{tmp_path / 'small'}")


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    assert f"{tmp_path} holds no model in the hub's form" in refusal(tmp_path, f"folder:{tmp_path}")


def test_weights_that_are_missing_or_damaged_are_one_line(folder: Path, tmp_path: Path) -> None:
    body = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(body[:1000])
    assert "cannot be loaded" in refusal(tmp_path, f"folder:{folder}")
    (folder / WEIGHTS).unlink()
    assert "cannot be loaded" in refusal(tmp_path, f"folder:{folder}")
    (folder / "config.json").write_text("{")
    assert "holds no model in the hub's form" in refusal(tmp_path, f"folder:{folder}")


def test_weights_of_another_depth_are_not_filled_up(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "n_layer": 3}))
    line = refusal(tmp_path, f"folder:{folder}", "model.layers=3")
    assert "do not fit the architecture (missing keys: transformer.h.2." in line


def test_a_pickle_is_never_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (folder / WEIGHTS).unlink()
    torch.save({"transformer.wte.weight": Malicious(trap)}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in refusal(tmp_path, f"folder:{folder}")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(trap)))
    assert "cannot be loaded" in refusal(tmp_path, f"folder:{folder}")
    assert not trap.exists()


def test_code_beside_weights_is_never_run(
    folder: Path, tmp_path: Path, model: GPT2LMHeadModel, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "trap"
    code = f"import os\nos.mkdir({str(trap)!r})\nclass Own: pass\n"
    for name in ("modeling_own.py", "tokenization_own.py", "configuration_own.py"):
        (folder / name).write_text(code)
    automatic = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    settings = json.loads((folder / "config.json").read_text()) | {"auto_map": automatic}
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens |= {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}, "tokenizer_class": "Own"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    family = ["model=smollm2_135m", "model.template=alpaca", "model.context_length=1024"]
    for words in ([], family):
        try:
            assert_same(started(tmp_path, f"folder:{folder}", *words), model)
        except UserError as error:
            assert "\n" not in str(error)
        assert not trap.exists()
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "own"}))
    assert str(folder) in refusal(tmp_path, f"folder:{folder}", *family)
    assert not trap.exists() and "custom code" not in capsys.readouterr().out  # nobody was asked to allow it
