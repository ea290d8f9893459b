"""Run folders: made once, held by one process, finished by a manifest, gone on with or refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fieldtune import runs
from fieldtune.config import to_yaml
from fieldtune.errors import UserError
from tests.commands import ROOT, TINY, compose, environment, offline_record, only_run, script, write_rows

NOON = datetime(2026, 3, 4, 12, 0, 0)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def made_run(output_dir: Path, name: str, minutes: int = 0, stage: str = "train") -> Path:
    """A run folder as the launcher makes it."""
    now = NOON + timedelta(minutes=minutes)
    folder = runs.make_run_dir(output_dir, name, now)
    runs.write_json(folder / runs.STARTED, runs.started_record(stage, name, now))
    return folder


def finish(folder: Path) -> None:
    runs.write_json(folder / runs.MANIFEST, {"metrics": {}})


def litter(folder: Path) -> list[Path]:
    """Half-written files and folders."""
    return [path for path in folder.rglob("*") if path.suffix in (".tmp", ".part") or path.name.startswith(".building")]


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a run folder until it is killed."""
    code = "import sys, time, pathlib; from fieldtune.runs import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(120)"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


# --- folders --------------------------------------------------------------------------------------------------


def test_launches_of_the_same_second_have_their_own_folders(tmp_path: Path) -> None:
    together = threading.Barrier(20)

    def make(_: int) -> Path:
        together.wait()
        return runs.make_run_dir(tmp_path, "golf", NOON)

    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(make, range(20)))
    names = {f"12-00-00-golf{number}" for number in ("", *(f"-{n}" for n in range(2, 21)))}
    assert {folder.name for folder in folders} == names
    assert all(folder.parent == tmp_path / "2026-03-04" and folder.is_dir() for folder in folders)


def test_processes_of_the_same_second_have_their_own_folders(tmp_path: Path) -> None:
    code = "import sys; from datetime import datetime; from pathlib import Path; from fieldtune.runs import *\n"
    code += "sys.stdin.read()  # all wait for the starting signal\n"
    code += "for _ in range(5): print(make_run_dir(Path(sys.argv[1]), 'golf', datetime(2026, 3, 4, 12)))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    printed = []
    for process in processes:
        assert process.stdout is not None
        printed += process.stdout.read().splitlines()
        assert process.wait() == 0
    assert len(printed) == len(set(printed)) == 20


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        runs.write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        runs.write_text(path, "\ud800")
    assert runs.read_json(path) == {"a": 1}
    assert litter(tmp_path) == []


@pytest.mark.parametrize(("text", "reason"), [("{", "not readable JSON"), ("[1]", "does not hold a JSON object")])
def test_a_broken_record_is_one_clear_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / runs.STARTED).write_text(text)
    with pytest.raises(UserError, match=reason):
        runs.open_run(tmp_path)


# --- the lock and the status ----------------------------------------------------------------------------------


def test_a_held_folder_is_refused_until_its_holder_is_killed(tmp_path: Path) -> None:
    folder = made_run(tmp_path, "golf")
    with holder(folder) as process:
        assert runs.is_running(folder) and runs.open_run(folder).status == "running"
        with pytest.raises(UserError, match="in use by a running process"), runs.locked(folder):
            pytest.fail("two processes hold one folder")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with runs.locked(folder):
            assert runs.is_running(folder)
    assert not runs.is_running(folder) and runs.open_run(folder).status == "unfinished"


def test_status_says_how_a_run_stands(tmp_path: Path) -> None:
    folder = made_run(tmp_path, "golf")
    run = runs.open_run(folder)
    assert run.status == "unfinished"  # nothing holds it and nothing was said
    runs.write_json(folder / runs.FAILURE, {"reason": "broken", "status": 2})
    assert run.status == "failed"
    with holder(folder):
        assert run.status == "running"  # gone on with after the failure
    assert run.status == "failed"
    finish(folder)
    assert run.status == "finished"


def test_find_run_takes_the_newest_finished_one_of_the_stage(tmp_path: Path) -> None:
    first, second, third = (made_run(tmp_path, "golf", minutes) for minutes in (0, 1, 2))
    prepared = made_run(tmp_path, "golf-prepare", 3, "prepare")
    for folder in (first, second, prepared):
        finish(folder)
    assert runs.find_run(tmp_path, "latest").folder == second
    assert runs.find_run(tmp_path, "latest", "prepare").folder == prepared
    assert runs.find_run(tmp_path, str(first)).folder == first
    assert [run.folder for run in runs.list_runs(tmp_path)] == [first, second, third, prepared]
    with pytest.raises(UserError, match="is unfinished; finish it with: python train"):
        runs.find_run(tmp_path, str(third))
    with pytest.raises(UserError, match="is a prepare run; give a train run"):
        runs.find_run(tmp_path, str(prepared))
    with pytest.raises(UserError, match="is not a run folder"):
        runs.find_run(tmp_path, str(tmp_path))
    with pytest.raises(UserError, match="no finished evaluate run in"):
        runs.find_run(tmp_path, "latest", "evaluate")


def test_the_record_says_what_ran(tmp_path: Path) -> None:
    record = runs.started_record("train", "golf", NOON)
    assert record["versions"].keys() >= {"python", "torch", "transformers", "pytorch-lightning"}
    assert record["created"].startswith("2026-03-04T12:00:00.000000") and record["command"] == sys.argv
    assert runs.git_state(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    state = runs.git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["changed"] is False
    (tmp_path / "file").write_text("2")
    assert runs.git_state(tmp_path)["changed"] is True


# --- run_dir= through the scripts -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a finished prepare run in `here`."""
    folder = tmp_path_factory.mktemp("prepared")
    write_rows(folder / "mine.jsonl")
    done = script(folder, "prepare", *TINY, "run_dir=here")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_finished_run_holds_everything_and_no_litter(prepared: Path) -> None:
    here = prepared / "here"
    assert {path.name for path in here.iterdir()} == {"config.yaml", "run.json", "log.txt", "manifest.json", ".lock"}
    manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    started = json.loads((here / "run.json").read_text(encoding="utf-8"))
    assert manifest.items() >= started.items()
    assert manifest["config"] == runs.open_run(here).config()
    assert manifest["metrics"]["rows/train"] == 12 and manifest["seconds"] > 0
    assert {path.name for path in prepared.iterdir()} == {"mine.jsonl", "here", "datasets"}
    assert litter(prepared) == []


@pytest.mark.parametrize(
    ("stage", "words", "status", "expected"),
    [
        ("prepare", [], 0, "here is finished; nothing to do"),
        ("prepare", ["seed=2"], 2, "run_dir=here was started with another configuration: seed was 1337, is 2"),
        ("prepare", ["seed=2", "trainer.patience=3"], 2, "seed was 1337, is 2; trainer.patience was None, is 3"),
        ("train", [], 2, "run_dir=here holds a prepare run, not a train run; give another run_dir="),
    ],
)
def test_a_finished_run_is_left_as_it_is(
    prepared: Path, stage: str, words: list[str], status: int, expected: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (prepared / "here").iterdir()}
    done = script(prepared, stage, *TINY, "run_dir=here", *words)
    assert done.returncode == status
    assert expected in (done.stderr if status else done.stdout) and "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (prepared / "here").iterdir()} == before


GOLF = ("data=golf", "data.count=3000", "tracking=off", "name=golf", "run_dir=here")  # a second or two of work


@pytest.fixture
def working(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A prepare run in `here` in the middle of its work, where it stands still until it gets a signal."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "prepare.py"), *GOLF],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that a signal can be sent as a terminal's Ctrl-C is: to both processes
    )
    wait_for(lambda: bool(list(tmp_path.glob("datasets/golf/.building-*/pool.jsonl"))), "the start of the work")
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: status_line(worker, "State").startswith("T"), "the stop")
    try:
        yield process
    finally:
        for pid in [*children(process.pid), process.pid] if process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        process.wait()


def status_line(pid: int, name: str) -> str:
    """A line of what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_a_run_in_use_is_refused_and_a_killed_one_goes_on(tmp_path: Path, working: subprocess.Popen[str]) -> None:
    here = tmp_path / "here"
    run = runs.open_run(here)
    assert run.status == "running"
    done = script(tmp_path, "prepare", *GOLF)
    assert done.returncode == 2
    assert "run_dir=here is in use by a running process" in done.stderr

    (worker,) = children(working.pid)
    os.kill(worker, signal.SIGKILL)
    assert working.wait(timeout=30) == 128 + signal.SIGKILL
    assert run.status == "unfinished" and not (here / runs.MANIFEST).exists()

    done = script(tmp_path, "prepare", *GOLF)
    assert done.returncode == 0, done.stderr
    assert run.status == "finished"


def test_ctrl_c_ends_a_run_in_order(tmp_path: Path, working: subprocess.Popen[str]) -> None:
    os.killpg(working.pid, signal.SIGINT)
    os.killpg(working.pid, signal.SIGCONT)
    assert working.wait(timeout=30) == 130
    assert working.stdout is not None and "Traceback" not in working.stdout.read()
    failure = json.loads((tmp_path / "here" / runs.FAILURE).read_text(encoding="utf-8"))
    assert failure["status"] == 130 and "interrupted" in failure["reason"]
    assert runs.open_run(tmp_path / "here").status == "failed"
    assert litter(tmp_path) == []


def test_sigterm_reaches_the_worker(tmp_path: Path, working: subprocess.Popen[str]) -> None:
    (worker,) = children(working.pid)
    working.terminate()
    wait_for(lambda: int(status_line(worker, "ShdPnd"), 16) == 1 << signal.SIGTERM - 1, "the worker's SIGTERM")
    os.kill(worker, signal.SIGCONT)
    assert working.wait(timeout=30) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{worker}").exists()
    assert runs.open_run(tmp_path / "here").status in ("unfinished", "failed")


# --- failures -------------------------------------------------------------------------------------------------


def test_bad_rows_are_told_in_one_line_and_mended_in_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("this is no row\n")
    done = script(tmp_path, "prepare", *TINY, "run_dir=here")
    assert done.returncode == 2
    assert "no usable row was found; 1 pieces are broken or refused" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    run = runs.open_run(tmp_path / "here")
    assert run.status == "failed"
    assert runs.read_json(run.folder / runs.FAILURE)["status"] == 2
    assert litter(tmp_path) == []
    write_rows(tmp_path / "mine.jsonl")
    assert script(tmp_path, "prepare", *TINY, "run_dir=here").returncode == 0
    assert run.status == "finished" and not (run.folder / runs.FAILURE).exists()


def test_a_fault_leaves_its_traceback_in_the_log_and_a_failed_wandb_run(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl")
    (tmp_path / "blocked").write_text("a file where a folder should be")
    done = script(tmp_path, "prepare", *TINY, "tracking=offline", "dataset_dir=blocked")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    folder = only_run(tmp_path)
    failure = runs.read_json(folder / runs.FAILURE)
    assert failure["status"] == 1 and "details in log.txt" in failure["reason"]
    log = (folder / runs.LOG).read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in log and failure["reason"] in log
    assert runs.open_run(folder).status == "failed" and not (folder / runs.MANIFEST).exists()
    assert litter(tmp_path) == []
    assert offline_record(folder)["exit_code"] == 1


def test_a_worker_without_a_run_folder_says_so(tmp_path: Path) -> None:
    for words, expected in (([], "usage: "), ([str(tmp_path)], "is not a run folder")):
        done = subprocess.run([sys.executable, "-m", "fieldtune.worker", *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert expected in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_folder_that_is_there_is_filled(tmp_path: Path) -> None:
    """A folder made by hand is taken; what lies in it stays."""
    write_rows(tmp_path / "mine.jsonl")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "note.txt").write_text("mine")
    assert script(tmp_path, "prepare", *TINY, "run_dir=here").returncode == 0
    assert (tmp_path / "here" / "note.txt").read_text() == "mine"
    config = compose("prepare", *TINY, "run_dir=here")
    assert (tmp_path / "here" / runs.CONFIG).read_text(encoding="utf-8") == to_yaml(config)
