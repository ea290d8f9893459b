"""The decoder's processes: a file that hangs or brings one down costs nothing but itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldtune.errors import UserError
from fieldtune.records import file_sha256
from fieldtune.sources.decoder import Decoder, Failure
from fieldtune.sources.video import Film, MediaError, decode, probe, uniform

from .films import bars, cut, number_of, wait_for_reader, write_film

EARLIER: set[int] = set()  # decoding processes of tests before, whose models are still in this process


@pytest.fixture(autouse=True)
def _of_this_test() -> None:
    EARLIER.update(children())


def children() -> list[int]:
    """Decoding processes of this process, of this test."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:  # gone by now
            continue
        if parent == os.getpid() and b"decoding_process" in command and int(folder.name) not in EARLIER:
            found.append(int(folder.name))
    return found


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file that blocks who reads it."""
    os.mkfifo(tmp_path / "hangs.mp4")
    return tmp_path / "hangs.mp4"


def test_what_comes_back_is_what_is_read_here(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4")
    Image.fromarray(bars(5)).save(tmp_path / "picture.png")
    with Decoder() as decoder:
        film, indices, frames = decoder.frames(path, uniform(4))
        assert film == probe(path) == decoder.probe(path) and indices == [0, 9, 19, 29]
        assert np.array_equal(frames, decode(path, indices)) and frames.flags.writeable
        assert np.array_equal(decoder.image(tmp_path / "picture.png"), bars(5))
        assert decoder.sha256(path) == file_sha256(path)
        decoder.check(path, "video")
        decoder.check(tmp_path / "picture.png", "image")
        assert len(children()) == 1
    assert children() == []


def test_a_film_that_hangs_and_broken_ones_cost_only_themselves(tmp_path: Path, fifo: Path) -> None:
    good = write_film(tmp_path / "good.mp4")
    broken = cut(write_film(tmp_path / "cut.mp4", range(60), container={"movflags": "faststart"}), 0.6)
    (tmp_path / "text.mp4").write_text("words " * 1000)
    paths = [good, fifo, broken, good, tmp_path / "text.mp4", tmp_path / "missing.mp4", good]
    with Decoder(timeout_seconds=4, workers=2) as decoder:
        outcomes = list(decoder.over(decoder.probe, paths))
    assert [type(outcome) for outcome in outcomes] == [Film, Failure, Failure, Film, Failure, Failure, Film]
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [failure.path for failure in failures] == [fifo, broken, tmp_path / "text.mp4", tmp_path / "missing.mp4"]
    assert failures[0].reason == "was not read within 4 s"
    assert all("\n" not in str(failure) for failure in failures)
    assert children() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_decoder_that_dies_in_the_middle(tmp_path: Path, fifo: Path, number: signal.Signals) -> None:
    good = write_film(tmp_path / "good.mp4")
    with Decoder() as decoder, ThreadPoolExecutor(1) as thread:
        assert decoder.probe(good).frames == 30
        hanging = thread.submit(decoder.probe, fifo)
        wait_for_reader(fifo)
        (child,) = children()
        os.kill(child, number)
        with pytest.raises(MediaError, match=f"hangs.mp4: brought its decoder down \\({number.name}\\)"):
            hanging.result()
        _, _, frames = decoder.frames(good, uniform(2))
        assert [number_of(frame) for frame in frames] == [0, 29]
        assert child not in children()


def test_one_that_was_killed_while_it_waited_is_replaced(tmp_path: Path) -> None:
    good = write_film(tmp_path / "good.mp4")
    with Decoder() as decoder:
        decoder.probe(good)
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert decoder.probe(good).frames == 30


def test_closing_ends_what_hangs(fifo: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        with Decoder(workers=2) as decoder:
            hanging = thread.submit(decoder.probe, fifo)
            wait_for_reader(fifo)
        with pytest.raises(MediaError):
            hanging.result()
    assert children() == []
    with pytest.raises(RuntimeError, match="closed"):
        decoder.probe(fifo)


def test_signals_to_all_processes_are_for_the_parent(tmp_path: Path) -> None:
    good = write_film(tmp_path / "good.mp4")
    with Decoder() as decoder:
        decoder.probe(good)
        (child,) = children()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(child, number)
        assert decoder.probe(good).frames == 30
        assert children() == [child]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('no such package')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with Decoder() as decoder, pytest.raises(UserError, match=r"pip install 'fieldtune\[video\]'"):
        decoder.probe(tmp_path / "film.mp4")


def test_a_forked_process_neither_asks_nor_ends_its_parents(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4")

    def in_child(decoder: Decoder) -> None:
        with pytest.raises(RuntimeError, match="another process"):
            decoder.probe(path)
        decoder.close()
        os._exit(7)

    with Decoder() as decoder:
        film = decoder.probe(path)
        (child,) = children()
        forked = multiprocessing.get_context("fork").Process(target=in_child, args=(decoder,))
        forked.start()
        forked.join(60)
        assert forked.exitcode == 7
        assert decoder.probe(path) == film and children() == [child]
