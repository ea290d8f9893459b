from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from fieldtune.errors import UserError
from fieldtune.models.hub import _reason, fetch_snapshot
from fieldtune.models.weights import resolve

from ..stages import compose
from .servers import COMMIT, Served, serve_hub
from .test_fetch import flipped

WEIGHTS = "model.safetensors"
EXTRAS = ("modeling_own.py", "README.md", "pytorch_model.bin", "onnx/model.onnx", "consolidated.safetensors")


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_head=2, n_layer=2))


@pytest.fixture(scope="module")
def files(model: GPT2LMHeadModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[Served]:
    lfs = {WEIGHTS: hashlib.sha256(files[WEIGHTS]).hexdigest()}
    with serve_hub(Served(files | dict.fromkeys(EXTRAS, b"x"), lfs=lfs)) as served:
        yield served


def snapshot(hub: Served, cache: Path, name: str = "owner/tiny", revision: str | None = None) -> Path:
    return fetch_snapshot(name, revision=revision, cache=cache, endpoint=hub.url)


def failure(hub: Served, cache: Path, name: str = "owner/tiny", revision: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        snapshot(hub, cache, name, revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_equal_weights(folder: Path, model: GPT2LMHeadModel) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_snapshot_holds_what_loading_needs(
    hub: Served, tmp_path: Path, model: GPT2LMHeadModel, files: dict[str, bytes], revision: str | None
) -> None:
    folder = snapshot(hub, tmp_path, revision=revision)
    assert {path.name for path in folder.iterdir()} == set(files)
    assert_equal_weights(folder, model)
    fetched = hub.sent.copy()
    assert snapshot(hub, tmp_path, revision=revision) == folder
    assert hub.sent == fetched


def test_without_weights_it_is_small_and_no_whole_snapshot(
    hub: Served, tmp_path: Path, model: GPT2LMHeadModel, files: dict[str, bytes]
) -> None:
    light = partial(fetch_snapshot, "owner/tiny", revision=None, cache=tmp_path, with_weights=False)
    folder = light(endpoint=hub.url)
    assert {path.name for path in folder.iterdir()} == set(files) - {WEIGHTS} and WEIGHTS not in hub.sent
    hub.status = {"api": 500}
    assert light(endpoint=hub.url) == folder  # from the cache
    assert "the hub failed to give owner/tiny (HTTP 500)" in failure(hub, tmp_path)
    hub.status = {}
    assert_equal_weights(snapshot(hub, tmp_path), model)


def test_pickled_weights_only_without_safetensors(hub: Served, tmp_path: Path) -> None:
    hub.files = {name: body for name, body in hub.files.items() if not name.endswith(".safetensors")}
    hub.files["training_args.bin"] = b"x"
    names = {path.name for path in snapshot(hub, tmp_path).iterdir()}
    assert "pytorch_model.bin" in names
    assert not names & {"training_args.bin", "modeling_own.py"}


def test_a_repository_without_weights(hub: Served, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}", "model.gguf": b"x"}
    assert "has no *.safetensors and no pytorch_model*.bin weights (its file types: .gguf, .json)" in failure(
        hub, tmp_path
    )


def test_a_cut_download_is_completed(hub: Served, tmp_path: Path, model: GPT2LMHeadModel) -> None:
    hub.cuts = {WEIGHTS: [10_000]}
    assert_equal_weights(snapshot(hub, tmp_path), model)
    assert [method for method, path, _ in hub.requests if path.endswith(WEIGHTS)] == ["HEAD", "GET", "GET"]


def test_a_flipped_byte_is_found_after_one_more_try(hub: Served, tmp_path: Path) -> None:
    hub.files[WEIGHTS] = flipped(hub.files[WEIGHTS], 5000)
    assert "came damaged twice (model.safetensors)" in failure(hub, tmp_path)
    assert hub.sent[WEIGHTS] == 2 * len(hub.files[WEIGHTS])
    assert not list(tmp_path.rglob(hub.lfs[WEIGHTS]))


def test_a_file_damaged_in_the_cache_is_fetched_again(hub: Served, tmp_path: Path, model: GPT2LMHeadModel) -> None:
    folder = snapshot(hub, tmp_path)
    for name in (WEIGHTS, "config.json"):
        blob = (folder / name).resolve()
        blob.write_bytes(flipped(blob.read_bytes(), 50))
    assert_equal_weights(snapshot(hub, tmp_path), model)


@pytest.mark.parametrize(("kind", "status"), [("api", 401), ("api", 403), ("file", 401), ("file", 403)])
def test_a_gated_repository(hub: Served, tmp_path: Path, kind: str, status: int) -> None:
    hub.status, hub.status_headers = {kind: status}, {"X-Error-Code": "GatedRepo"}
    message = failure(hub, tmp_path)
    assert f"owner/tiny is gated: accept its license at {hub.url}/owner/tiny," in message
    assert "HF_TOKEN" in message


def test_a_license_that_the_tokens_account_has_not_accepted(
    hub: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.status, hub.status_headers = {"api": 403}, {"X-Error-Code": "GatedRepo"}
    message = failure(hub, tmp_path)
    assert f"the account of your token has no access: accept its license at {hub.url}/owner/tiny" in message
    assert "hf_secret" not in message


@pytest.mark.parametrize(("revision", "warned"), [(None, True), ("main", True), (COMMIT, False)])
def test_a_model_that_is_not_pinned_is_told_its_commit(
    hub: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    revision: str | None,
    warned: bool,
) -> None:
    here = partial(fetch_snapshot, cache=tmp_path / "hub", endpoint=hub.url)
    monkeypatch.setattr("fieldtune.models.hub.fetch_snapshot", here)
    more = [f"model.revision={revision}"] if revision else []
    config = compose(tmp_path, "train", "model=hub", "model.weights=hub:owner/tiny", *more)
    source = resolve(config.model, config)
    assert source.folder == tmp_path / "hub" / "models--owner--tiny" / "snapshots" / COMMIT
    line = f"hub:owner/tiny may change on the hub; this is model.revision={COMMIT}"
    assert [record.getMessage() for record in caplog.records if record.name == "fieldtune"] == [line] * warned


def test_a_token_is_sent_and_never_written(hub: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.status = {"file": 403}
    message = failure(hub, tmp_path)
    assert "HTTP 403" in message
    assert "hf_secret" not in message
    hub.status = {}
    snapshot(hub, tmp_path)
    assert {headers["Authorization"] for _, _, headers in hub.requests} == {"Bearer hf_secret"}
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hf_secret" in p.read_bytes()]


def test_a_refused_token(hub: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.status = {"api": 401}
    hub.status_headers = {"X-Error-Message": "Invalid credentials in Authorization header"}
    assert "the hub refuses the token for owner/tiny (HTTP 401): renew HF_TOKEN" in failure(hub, tmp_path)


def test_unknown_names_and_revisions(hub: Served, tmp_path: Path) -> None:
    assert "there is no model owner/other at http" in failure(hub, tmp_path, "owner/other")
    assert "'own er//x' is no model's name on the hub" in failure(hub, tmp_path, "own er//x")
    assert "owner/tiny has no revision 'v9'" in failure(hub, tmp_path, revision="v9")


def test_a_hub_that_fails(hub: Served, tmp_path: Path, model: GPT2LMHeadModel) -> None:
    hub.status = {"api": 500}
    assert "the hub failed to give owner/tiny (HTTP 500)" in failure(hub, tmp_path)
    hub.status = {}
    folder = snapshot(hub, tmp_path)
    hub.status = {"api": 503}
    assert snapshot(hub, tmp_path) == folder


def test_without_a_network_the_cache_serves(hub: Served, tmp_path: Path) -> None:
    folder = snapshot(hub, tmp_path / "full")
    away = Served(url="http://127.0.0.1:9")
    assert snapshot(away, tmp_path / "full") == folder
    assert "cannot reach http://127.0.0.1:9, and the model owner/tiny is not" in failure(away, tmp_path)
    (folder / WEIGHTS).unlink()
    assert "not completely in the cache" in failure(away, tmp_path / "full")


def test_damage_in_the_cache_without_a_network(hub: Served, tmp_path: Path) -> None:
    blob = (snapshot(hub, tmp_path) / WEIGHTS).resolve()
    blob.write_bytes(flipped(blob.read_bytes(), 50))
    away = Served(url="http://127.0.0.1:9")
    assert "were damaged and are deleted now (model.safetensors)" in failure(away, tmp_path)


def test_a_cache_that_cannot_be_written(hub: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot store the model owner/tiny: " in failure(hub, tmp_path / "file")


def test_offline_mode(hub: Served, tmp_path: Path) -> None:
    """The client reads the variable when it is imported, so another process has to."""
    folder = snapshot(hub, tmp_path / "full")
    code = (
        "import sys; from pathlib import Path; from fieldtune.errors import UserError\n"
        "from fieldtune.models.hub import fetch_snapshot\n"
        "for cache in sys.argv[2:]:\n"
        "    try: print(fetch_snapshot('owner/tiny', revision=None, cache=Path(cache), endpoint=sys.argv[1]))\n"
        "    except UserError as error: print(error)\n"
    )
    arguments = [hub.url, str(tmp_path / "full"), str(tmp_path / "empty")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    found, missing = done.stdout.splitlines()
    assert found == str(folder)
    assert "is not in the cache, and HF_HUB_OFFLINE forbids" in missing


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("xet: No space left on device (os error 28)")],
)
def test_a_full_disk(error: Exception) -> None:
    assert "the disk is full; free space" in _reason(error, "owner/tiny", None, "https://hub")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_write_that_fails(hub: Served, tmp_path: Path) -> None:
    """A limit on the size of files makes the write fail in the middle."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from fieldtune.errors import UserError; from fieldtune.models.hub import fetch_snapshot\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: fetch_snapshot('owner/tiny', revision=None, cache=Path(sys.argv[2]), endpoint=sys.argv[1])\n"
        "except UserError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, hub.url, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("cannot store the model owner/tiny: ")
