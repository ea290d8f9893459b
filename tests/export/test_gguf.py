"""GGUF files and Ollama folders by llama.cpp's own converter and library: made, asked, compared, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fieldtune.errors import UserError
from fieldtune.export.converter import ARCHIVE, ensure_converter
from fieldtune.export.footprint import footprint
from fieldtune.export.gguf_file import has_llama
from fieldtune.export.llama import Llama
from fieldtune.export.modelfile import read_modelfile
from fieldtune.export.template_check import has_go
from fieldtune.records import Message
from fieldtune.runs import Run
from fieldtune.serving.predictor import Predictor

from .conftest import SYSTEM, cached, trained
from .test_forms import exported, left, manifest

needs_llama = pytest.mark.skipif(not has_llama(), reason="no llama-cpp-python; make install-gguf brings it")
needs_go = pytest.mark.skipif(not has_go(), reason="no go on PATH")


@pytest.mark.slow
@needs_llama
@needs_go
def test_a_folder_for_ollama(mistral_run: Run, tmp_path: Path) -> None:
    folder = exported(mistral_run, tmp_path / "out", "to=ollama", "quantization=q4_K_M")
    lines = read_modelfile((folder / "Modelfile").read_text("utf-8"))
    values = dict(lines)
    assert values["FROM"] == "./model.gguf" and (folder / "model.gguf").is_file()
    assert values["SYSTEM"] == SYSTEM["content"]
    assert [value for name, value in lines if name == "PARAMETER stop"] == ["</s>"]
    wanted = {"num_ctx": "512", "num_predict": "40", "temperature": "0", "repeat_penalty": "1", "top_p": "1"}
    assert {key: values[f"PARAMETER {key}"] for key in wanted} == wanted
    assert "ollama create tiny-run -f Modelfile" in (folder / "README.md").read_text("utf-8")
    checks = manifest(folder)["checks"]
    for engine in ("go", "llama.cpp"):
        assert checks["template"][engine]["equal"] >= checks["template"][engine]["conversations"] - 5
    assert checks["gguf"]["agreement"] > 0.8
    assert checks["memory"]["weights"] == (folder / "model.gguf").stat().st_size
    assert checks["memory"]["keys_and_values"] == 2 * 2 * 2 * 16 * 2 * 512  # sides, layers, heads, width, bytes, tokens
    assert manifest(folder)["converter"]["version"]


@pytest.mark.slow
@needs_llama
def test_llama_cpp_says_what_the_model_says(gpt2_run: Run, tmp_path: Path) -> None:
    """Token ids, logits and a greedy answer, in fp32."""
    folder = exported(gpt2_run, tmp_path / "out", "to=gguf", "quantization=f32")
    assert manifest(folder)["checks"]["gguf"]["difference"] < 1e-2
    predictor = Predictor(gpt2_run.folder)
    prompt = [Message("user", ("Which ladder of birch?",))]
    ids, (wanted,) = predictor.encode(prompt), predictor.answer([prompt])
    with Llama(folder / "model.gguf", 256, threads=1) as llama:
        assert (
            llama.tokenize(predictor._models.encoder.prompt_text([Message("user", ("Which ladder of birch?",))])) == ids
        )
        tokens = llama.answer(ids, predictor.sampling().max_new_tokens, predictor.tokenizer.stop_ids)
        assert predictor.tokenizer.decode(tokens).strip() == wanted.text
        apart = np.concatenate([llama.logits(ids[: place + 1], [place]) for place in (3, len(ids) - 1)])
        assert np.abs(apart - llama.logits(ids, [3, len(ids) - 1])).max() < 1e-3


@pytest.mark.slow
@needs_llama
def test_over_a_bound_no_gguf_is_published(mistral_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the GGUF in q8_0 says other things .* nothing is published"):
        exported(mistral_run, tmp_path / "out", "to=gguf", "max_kl=0")
    assert left(tmp_path) == []


@pytest.mark.slow
@needs_llama
def test_what_the_converter_refuses_is_one_line(tmp_path: Path) -> None:
    """A Gemma without the sentencepiece file that the released ones have."""
    run = trained(tmp_path, "model=gemma_tiny", "adapter=lora", cached(tmp_path))
    before = left(tmp_path)
    with pytest.raises(UserError, match=r"^llama.cpp's converter refuses the model \([^\n]*tokenizer\.model[^\n]*$"):
        exported(run, tmp_path / "out", "to=gguf")
    assert left(tmp_path) == before


@pytest.mark.slow
@needs_llama
@needs_go
def test_smollm2_for_ollama(smollm2: Path, tmp_path: Path) -> None:
    """A real pretrained model, tuned for some steps: its answers in 8 bits by llama.cpp are those of the run."""
    run = trained(tmp_path, "model=smollm2_135m", "adapter=lora", "trainer.max_steps=12")
    folder = exported(run, tmp_path / "out", "to=ollama", "prompts=4", "tokens=24")
    checks = manifest(folder)["checks"]
    assert checks["merged"]["difference"] < 1e-3
    assert checks["gguf"]["kl"] < 0.01 and checks["gguf"]["agreement"] > 0.95
    assert checks["template"]["llama.cpp"]["differ_in_blanks_at_the_ends"] == ["blanks before an answer"]
    values = dict(read_modelfile((folder / "Modelfile").read_text("utf-8")))
    assert values["PARAMETER stop"] == "<|im_end|>"


def test_the_archive_must_be_the_known_one(tmp_path: Path) -> None:
    (tmp_path / "llama.cpp").mkdir()
    (tmp_path / "llama.cpp" / ARCHIVE).write_bytes(b"something else")
    with pytest.raises(UserError, match="its SHA-256 is another"):
        ensure_converter(tmp_path)
    assert left(tmp_path / "llama.cpp") == sorted([ARCHIVE, "0.3.lock"])


def test_memory_by_hand() -> None:
    """Mistral-7B: 32 layers, 8 heads of keys and values, 128 wide."""

    class Shape:
        num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim = 32, 32, 8, 128
        hidden_size, vocab_size = 4096, 32768

    found = footprint(4_371_000_000, Shape, 2048)
    assert found["keys_and_values"] == 131_072 * 2048 and found["logits"] == 32768 * 512 * 4
    assert 4.70e9 < sum(found.values()) < 4.71e9


def test_the_coachs_schemas_are_written_beside(tmp_path: Path) -> None:
    from fieldtune import tasks
    from fieldtune.tasks.fitness.schema import ANSWERS

    schemas = tasks.answer_schemas("fitness")
    assert schemas.keys() == ANSWERS.keys()
    assert all("$ref" not in json.dumps(schema) for schema in schemas.values())
    assert tasks.answer_schemas("jsonl") == {}
