"""What W&B keeps of a run is what the run folder keeps; no login is no obstacle, off is off."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from fieldtune import runs, tracking
from fieldtune.config import TrackingMode, to_yaml
from fieldtune.records import read_jsonl
from fieldtune.tracking import has_login, without_secrets
from tests.commands import ROOT, TINY, compose, environment, offline_history, offline_record, script, write_rows

OFFLINE = [*(word for word in TINY if word != "tracking=off"), "tracking=offline", "tracking.tags=[first,golf]"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows prepared by a tracked run in `prepared`."""
    folder = tmp_path_factory.mktemp("work")
    write_rows(folder / "mine.jsonl")
    run_tracked(folder, "prepare", "prepared")
    return folder


def run_tracked(folder: Path, stage: str, name: str) -> None:
    done = script(folder, stage, *OFFLINE, f"run_dir={name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wandb" not in done.stdout + done.stderr  # nothing of W&B's on the terminal


def plain(value: Any) -> Any:
    """JSON knows one kind of number: 1.0 comes back as 1."""
    return json.loads(json.dumps(value), parse_int=float)


def assert_kept(folder: Path) -> None:
    """What W&B has of a finished run is what the run folder has."""
    record = offline_record(folder)
    assert plain(record["config"]) == plain(yaml.safe_load((folder / runs.CONFIG).read_text(encoding="utf-8")))
    assert record["config"]["model"]["tokenizer"] == "gpt2_bpe"  # named like a secret, but none
    assert record["run_id"] == runs.read_json(folder / runs.STARTED)["id"] and record["name"] == folder.name
    assert record["project"] == "fieldtune" and record["tags"] == ["first", "golf"]
    assert record["state"] == "finished" and record["exit_code"] == 0
    metrics = runs.read_json(folder / runs.MANIFEST)["metrics"]
    assert metrics and {key: record["summary"][key] for key in metrics} == metrics


def test_a_prepare_run_is_kept(work: Path) -> None:
    assert_kept(work / "prepared")
    assert {path.name for path in work.iterdir()} >= {"mine.jsonl", "datasets", "prepared"}
    assert not (work / "wandb").exists()  # all of W&B's files lie in the run folder


@pytest.mark.slow
def test_a_train_run_is_kept_step_by_step(work: Path) -> None:
    run_tracked(work, "train", "trained")
    assert_kept(work / "trained")
    wanted = {line.pop("step"): line for line in read_jsonl(work / "trained" / "metrics.jsonl")}
    history = {item["step"]: item for item in offline_history(work / "trained")}
    assert history.keys() == wanted.keys() == {0, 1, 2}
    for step, metrics in wanted.items():
        assert history[step]["_step"] == step
        assert {name: history[step][name] for name in metrics} == metrics
    assert history[2]["samples.nrows"] == 1
    # Lineage: the data set by its fingerprint.
    fingerprint = runs.read_json(work / "prepared" / runs.MANIFEST)["data"]["fingerprint"]
    assert runs.read_json(work / "trained" / runs.MANIFEST)["data"]["fingerprint"] == fingerprint
    assert fingerprint in json.dumps(offline_record(work / "trained")["summary"])


@pytest.mark.parametrize("words", [["tracking.project=a/b"], ["tracking.tags=['']"]], ids=["project", "tags"])
def test_what_wandb_refuses_is_one_line_and_a_failed_run(tmp_path: Path, words: list[str]) -> None:
    write_rows(tmp_path / "mine.jsonl")
    done = script(tmp_path, "prepare", *OFFLINE, *words, "run_dir=here")
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "W&B refuses this run" in done.stdout + done.stderr
    assert runs.open_run(tmp_path / "here").status == "failed"


def test_a_bad_row_is_a_failed_wandb_run(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("no row\n")
    done = script(tmp_path, "prepare", *OFFLINE, "run_dir=here")
    record = offline_record(tmp_path / "here")
    assert done.returncode == record["exit_code"] == 2
    assert record["state"] == "failed"


def test_without_a_login_nothing_is_asked_and_nothing_is_sent(tmp_path: Path) -> None:
    """tracking=wandb as it comes: standard input is closed, the host is one that refuses every connection."""
    write_rows(tmp_path / "mine.jsonl")
    words = [*(word for word in OFFLINE if word != "tracking=offline"), "tracking=wandb", "run_dir=here"]
    started = subprocess.run(
        [sys.executable, str(ROOT / "prepare.py"), *words],
        cwd=tmp_path,
        env={
            **{key: value for key, value in environment().items() if key not in ("WANDB_MODE", "WANDB_API_KEY")},
            "WANDB_BASE_URL": "http://127.0.0.1:9",
            "NETRC": str(tmp_path / "absent"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert started.returncode == 0, started.stderr
    assert list((tmp_path / "here").glob("wandb/offline-run-*")) and not list((tmp_path / "here").glob("wandb/run-*"))


def test_off_imports_no_wandb_and_writes_nothing_of_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl")
    code = "import sys, runpy; sys.modules['wandb'] = None; sys.argv = ['worker', 'here']\n"
    code += "runpy.run_module('fieldtune.worker', run_name='__main__')"
    (tmp_path / "here").mkdir()
    config = compose("prepare", *TINY, "run_dir=here")
    runs.write_text(tmp_path / "here" / runs.CONFIG, to_yaml(config))
    record = runs.started_record("prepare", "tiny", datetime.now())
    runs.write_json(tmp_path / "here" / runs.STARTED, record)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*wandb*"))


# --- which mode -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without a W&B login; returns where a netrc file would be."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def write_netrc(path: Path, host: str) -> None:
    path.write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    path.chmod(0o600)


def test_a_login_is_a_key_or_the_hosts_entry(no_login: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_login()
    no_login.write_text("this is no netrc file\n")
    assert not has_login()
    write_netrc(no_login, "example.org")
    assert not has_login()
    write_netrc(no_login, "api.wandb.ai")
    assert has_login()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not has_login()
    write_netrc(no_login, "wandb.example.org")
    assert has_login()
    no_login.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "")
    assert not has_login()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert has_login()


def test_auto_is_online_only_with_a_login(no_login: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking._mode(TrackingMode.auto) == "offline"
    write_netrc(no_login, "api.wandb.ai")
    assert tracking._mode(TrackingMode.auto) == "online"
    assert tracking._mode(TrackingMode.offline) == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracking._mode(TrackingMode.auto) == "offline"
    no_login.unlink()
    assert tracking._mode(TrackingMode.online) == "online"  # asked for: W&B itself says that the login is missing


# --- secrets --------------------------------------------------------------------------------------------------

SECRETS = {
    "token": "t0p",
    "hf_token": "t0p",
    "access_tokens": ["t0p", "t0p"],
    "api_key": "t0p",
    "apiKey": "t0p",
    "client_secret": "t0p",
    "password": "t0p",
    "Credentials": {"password": "t0p", "user": "u"},
    "path": "https://user:t0p@example.org/data.jsonl",
    "paths": [{"url": "s3://t0p@bucket/x"}],
}
HARMLESS = {
    "tokenizer": "gpt2_bpe",
    "sample_tokens": 140,
    "max_new_tokens": 400,
    "temperature": 0.7,
    "base": True,
    "entity": None,
    "weights": "hub:OWNER/NAME",
    "path": "data/mine@home.jsonl",
    "url": "https://example.org/a@b",
}


def test_secrets_are_replaced_wherever_they_stand() -> None:
    kept = without_secrets({"data": SECRETS})
    assert "t0p" not in json.dumps(kept)
    assert kept["data"]["path"] == "https://(secret)@example.org/data.jsonl"
    assert kept["data"]["Credentials"]["user"] == "u" and kept["data"]["paths"][0]["url"].startswith("s3://")
    assert SECRETS["token"] == "t0p"  # a copy was changed


def test_what_is_no_secret_stays() -> None:
    assert without_secrets(HARMLESS) == HARMLESS


def test_a_secret_in_an_address_does_not_reach_wandb(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl")
    words = [word for word in OFFLINE if not word.startswith("tracking.tags")]
    words += ["model.weights=hub:https://user:correct-horse@example.org/x", "run_dir=here"]
    done = script(tmp_path, "prepare", *words)
    assert done.returncode == 0, done.stderr
    assert offline_record(tmp_path / "here")["config"]["model"]["weights"] == "hub:https://(secret)@example.org/x"
    for path in (tmp_path / "here" / "wandb").rglob("*"):
        assert not path.is_file() or b"correct-horse" not in path.read_bytes(), path
