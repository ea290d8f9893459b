"""The words of `fieldtune export`: what is allowed, what goes together, and the one line for what does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fieldtune.errors import UserError
from fieldtune.export.options import BOUNDS, QUANTIZATIONS, WORDS, Options, options


def read(*words: str) -> Options:
    given = dict(word.split("=", 1) for word in words)
    return options({key: given.get(key, "") for key in WORDS})


def test_defaults() -> None:
    wanted = read("run=latest", "to=gguf")
    assert wanted == Options("latest", "gguf") and wanted.bounds == BOUNDS["q8_0"]
    assert wanted.is_gguf and not read("run=latest", "to=merged").is_gguf


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_a_quantization_brings_its_bounds(name: str) -> None:
    assert read("to=ollama", f"quantization={name}").bounds == BOUNDS[name]
    own = read("to=gguf", f"quantization={name}", "max_kl=0.5", "min_agreement=0.25").bounds
    assert (own.kl, own.agreement) == (0.5, 0.25)


def test_less_exact_files_may_lose_more() -> None:
    ordered = [BOUNDS[name] for name in QUANTIZATIONS]
    assert ordered == sorted(ordered, key=lambda bounds: bounds.kl)
    assert ordered[:3] == sorted(ordered[:3], key=lambda bounds: -bounds.agreement)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("to=ggml",), "to=ggml is not allowed; did you mean gguf?; give adapter|merged|gguf|ollama|pth"),
        (("to=gguf", "quantization=q4"), "quantization=q4 is not allowed"),
        (("to=merged", "quantization=q8_0"), "quantization= does not go with to=merged; it is for to=gguf|ollama"),
        (("to=gguf", "precision=bf16"), "precision= does not go with to=gguf; it is for to=merged"),
        (("to=gguf", "skip=everything"), "skip=everything is not allowed"),
        (("to=gguf", "prompts=0"), "prompts=0 is not allowed; give a whole number from 1 to 10,000"),
        (("to=gguf", "prompts=2.5"), "prompts=2.5 is not allowed"),
        (("to=gguf", "max_kl=nan"), "max_kl=nan is not allowed; give a number from 0 to 1,000"),
        (("to=gguf", "min_agreement=2"), "min_agreement=2 is not allowed; give a number from 0 to 1"),
    ],
)
def test_a_slip_is_one_line(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(*words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_slip_costs_no_torch() -> None:
    """Read in a process of its own."""
    code = (
        "import sys; from fieldtune import cli; sys.argv = ['fieldtune', 'export', 'run=x', 'to=ggml']\n"
        "try: cli.main()\nexcept SystemExit as end: assert end.code == 2\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "to=ggml is not allowed" in done.stderr, done.stderr
