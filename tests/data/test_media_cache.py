"""The media cache: made once, whoever asks; bounded; corrupt entries made again; what it needs said before."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldtune.data.cache_entry import PAGE, Bfloat16, Entry, entry_bytes, open_entry, storable, write_entry
from fieldtune.data.media_cache import Key, MediaCache, needs
from fieldtune.errors import UserError

SHAPE = (16, 8, 8, 3)
EACH = entry_bytes(SHAPE, "uint8")


def key(number: int, **processor: Any) -> Key:
    return Key(f"{number:064x}", "16 of 1 a second", {"size": [8, 8], **processor})


def frames(number: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"frames": np.random.default_rng(number).integers(0, 256, SHAPE, dtype=np.uint8)}


def maker(number: int) -> Callable[[], Mapping[str, Any]]:
    return lambda: frames(number)


def never() -> Mapping[str, Any]:
    raise AssertionError("nothing is to be made")


def counts(cache: MediaCache, **wanted: int) -> None:
    assert asdict(cache.counts) == {"made": 0, "read": 0, "rebuilt": 0, "evicted": 0, "unsaved": 0} | wanted


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*"))


def is_frames(entry: Entry, number: int) -> bool:
    return np.array_equal(entry.arrays["frames"], frames(number)["frames"])


def test_epochs_after_the_first_make_nothing(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    for epoch in range(3):
        for number in range(5):
            assert is_frames(cache.get(key(number), maker(number) if epoch == 0 else never), number)
    counts(cache, made=5, read=10)
    later = MediaCache(tmp_path)  # another process, another day
    assert is_frames(later.get(key(3), never), 3) and later.has(key(4)) and not later.has(key(5))
    counts(later, read=1)
    assert [path.suffix for path in files(tmp_path)] == [".entry"] * 5
    assert later.used() == sum(path.stat().st_size for path in files(tmp_path)) == needs(5, SHAPE, "uint8")


def test_content_sampling_and_processor_decide() -> None:
    one = Key("a", {"n": 16}, {"size": 224, "mean": [0.5]})
    assert one.name == Key("a", {"n": 16}, {"mean": [0.5], "size": 224}).name
    others = [Key("b", one.sampling, one.processor), Key("a", {"n": 8}, one.processor), Key("a", {"n": 16}, {})]
    assert len({one.name, *(other.name for other in others)}) == 4
    with pytest.raises(TypeError):
        Key("a", object(), {}).name  # noqa: B018


def test_arrays_of_every_kind_come_back(tmp_path: Path) -> None:
    features = torch.randn(3, 5)
    arrays = {
        "bfloat16": storable(features.bfloat16()),
        "float16": storable(features.half()),
        "float32": storable(features.T),
        "int64": np.array(7),
        "none": np.zeros((0, 4), dtype=np.float32),
        "big": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False]),
    }
    write_entry(tmp_path / "entry", {"facts": "é"}, arrays)
    entry = open_entry(tmp_path / "entry", verify=True)
    assert entry.facts == {"facts": "é"} and list(entry.arrays) == list(arrays)
    assert entry.dtypes["bfloat16"] == "bfloat16" and entry.arrays["bfloat16"].dtype == np.uint16
    for name in ("bfloat16", "float16", "float32"):
        tensor = entry.tensor(name)
        assert tensor.dtype == getattr(torch, name) and tensor.is_contiguous()
        assert torch.equal(tensor, (features.T if name == "float32" else features).to(tensor.dtype))
    assert entry.tensor("int64").item() == 7 and entry.tensor("none").shape == (0, 4)
    assert entry.arrays["big"].tolist() == [0, 1, 2] and entry.arrays["bool"].tolist() == [True, False]
    with pytest.raises(ValueError):
        entry.arrays["float32"][0, 0] = 1  # what is mapped is for all
    with pytest.raises(ValueError, match="an entry cannot hold float64; allowed: "):
        write_entry(tmp_path / "entry", {}, {"a": np.zeros(2)})


def test_the_form_is_what_is_documented(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    size = write_entry(tmp_path / "entry", {}, {"a": array, "b": Bfloat16(np.array([1, 2], dtype=np.uint16))})
    data = (tmp_path / "entry").read_bytes()
    assert len(data) == size == PAGE + 64 + 64
    assert data[:8] == b"FTMEDIA1" and struct.unpack("<Q", data[8:16])[0] < PAGE
    assert np.frombuffer(data, "<f4", 6, PAGE).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.frombuffer(data, "<u2", 2, PAGE + 64).tolist() == [1, 2]


def flip(data: bytearray, place: int) -> bytearray:
    data[place] ^= 4
    return data


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda data: data[:-100], "bytes long"),
        (lambda data: data[:10], "shorter than its beginning"),
        (lambda data: b"", "empty"),
        (lambda data: flip(data, PAGE + 1000), "its arrays"),
        (lambda data: flip(data, 60), "its header"),
        (lambda data: flip(data, 9), "its header"),
        (lambda data: flip(data, 0), "does not begin"),
    ],
    ids=["cut", "very short", "empty", "array", "header", "length", "magic"],
)
def test_a_corrupt_entry_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[bytearray], bytes], words: str
) -> None:
    MediaCache(tmp_path).get(key(1), maker(1))
    (path,) = files(tmp_path)
    path.write_bytes(harm(bytearray(path.read_bytes())))
    cache = MediaCache(tmp_path)
    with caplog.at_level(logging.WARNING, logger="fieldtune"):
        assert is_frames(cache.get(key(1), maker(1)), 1)
    assert words in caplog.text and "is made again" in caplog.text
    counts(cache, made=1, rebuilt=1)
    assert is_frames(MediaCache(tmp_path).get(key(1), never), 1)


def test_a_cut_entry_does_not_spoil_the_count(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    for number in range(3):
        cache.get(key(number), maker(number))
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:500])
    later = MediaCache(tmp_path)
    for number in range(3):
        later.get(key(number), maker(number))
    counts(later, made=1, read=2, rebuilt=1)
    assert later.used() == 3 * EACH


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path, max_bytes=4 * EACH)
    for number in range(4):
        cache.get(key(number), maker(number))
        age(tmp_path, number, 100 - number)
    cache.get(key(0), never)
    cache.get(key(4), maker(4))
    gc.collect()
    assert [number for number in range(5) if cache.has(key(number))] == [0, 2, 3, 4]
    counts(cache, made=5, read=1, evicted=1)
    assert cache.used() == 4 * EACH


def age(folder: Path, number: int, seconds: float) -> None:
    """Let an entry have been used so long ago."""
    name = key(number).name
    past = time.time() - seconds
    os.utime(folder / name[:2] / f"{name}.entry", (past, past))


def test_what_is_open_is_not_evicted(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path, max_bytes=2 * EACH)
    held = cache.get(key(0), maker(0)).arrays["frames"]  # the array alone keeps it open
    age(tmp_path, 0, 100)
    cache.get(key(1), maker(1))
    gc.collect()
    second = cache.get(key(2), maker(2))
    assert cache.has(key(0)) and not cache.has(key(1))
    third = cache.get(key(3), maker(3))  # everything that is there is open: it is handed out, not kept
    assert is_frames(third, 3) and not cache.has(key(3)) and cache.used() == 2 * EACH
    counts(cache, made=4, evicted=1, unsaved=1)
    assert len(files(tmp_path)) == 2 and is_frames(second, 2) and np.array_equal(held, frames(0)["frames"])


def test_an_entry_that_is_larger_than_the_bound_evicts_nothing(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path, max_bytes=EACH)
    cache.get(key(0), maker(0))
    gc.collect()
    large = cache.get(key(1), lambda: {"frames": np.zeros((99, 99), dtype=np.float32)})
    assert large.arrays["frames"].shape == (99, 99) and cache.has(key(0)) and not cache.has(key(1))


def test_a_change_of_the_bound_and_of_the_record(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    for number in range(6):
        cache.get(key(number), maker(number))
    gc.collect()
    (tmp_path / "bytes").unlink()  # a process was killed while it moved an entry in
    smaller = MediaCache(tmp_path, max_bytes=3 * EACH)
    smaller.get(key(9), maker(9))
    assert smaller.used() == 3 * EACH == sum(path.stat().st_size for path in files(tmp_path))
    counts(smaller, made=1, evicted=4)


def test_what_it_needs_is_said_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shape = (16, 224, 224, 3)
    assert needs(1000, shape, "uint8") == 1000 * (4096 + 16 * 224 * 224 * 3)
    assert needs(3, (10,), "bfloat16") == 3 * (4096 + 64)
    with caplog.at_level(logging.INFO, logger="fieldtune"):
        assert MediaCache(tmp_path).announce(1000, shape, "uint8", present=2) == needs(1000, shape, "uint8")
        assert "1,000 entries of uint8 [16, 224, 224, 3] take 2.41 GB; 2 are there" in caplog.text
        MediaCache(tmp_path, max_bytes=10**9).announce(1000, shape, "uint8")
    assert "may have 1.00 GB: about 414 of them; the others are made again in every epoch" in caplog.text
    with pytest.raises(UserError, match="is free; make room") as caught:
        MediaCache(tmp_path).announce(10**9, shape, "uint8")
    assert "\n" not in str(caught.value)
    MediaCache(tmp_path, max_bytes=10**6).announce(10**9, shape, "uint8")  # bounded: it fits


def test_what_make_raises_comes_through_and_leaves_nothing(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    with pytest.raises(AssertionError):
        cache.get(key(1), never)
    assert files(tmp_path) == []
    assert is_frames(cache.get(key(1), maker(1)), 1)


def test_threads_make_each_entry_once(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda number: is_frames(cache.get(key(number), maker(number)), number), list(range(6)) * 8)
        assert all(found)
    counts(cache, made=6, read=42)


def test_a_worker_process_gets_a_cache_of_its_own(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path, max_bytes=10**6)
    cache.get(key(1), maker(1))
    copy = pickle.loads(pickle.dumps(cache))
    assert is_frames(copy.get(key(1), never), 1)
    counts(copy, read=1)


PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
from fieldtune.data.media_cache import Key, MediaCache
folder, what = Path(sys.argv[1]), sys.argv[2]
cache = MediaCache(folder)
def make(number):
    if what == "hang":
        (folder / "making").touch()
        time.sleep(600)
    time.sleep(0.01)
    return {"frames": np.full((50, 50), number % 256, dtype=np.uint8)}
for number in range(20):
    entry = cache.get(Key(str(number), None, None), lambda: make(number))
    assert (entry.arrays["frames"] == number).all()
print(cache.counts.made, cache.counts.read)
"""


def test_processes_make_each_entry_once(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), "work"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [process.communicate(timeout=120)[0].split() for process in started]
    assert sum(int(made) for made, _ in told) == 20
    assert sum(int(read) for _, read in told) == 40
    assert len(files(tmp_path)) == 20


def test_a_killed_writer_leaves_nothing_that_is_taken_for_an_entry(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), "hang"])
    while not (tmp_path / "making").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cache = MediaCache(tmp_path)
    first = Key("0", None, None)
    cache.get(first, maker(0))  # the lock went with the process

    (path,) = files(tmp_path)
    half = path.with_name(f".{path.stem}.1.2.tmp")
    half.write_bytes(path.read_bytes()[:3000])
    path.unlink()
    again = MediaCache(tmp_path)
    assert half.exists() and not again.has(first)
    again.get(first, maker(0))
    counts(again, made=1)
    past = time.time() - 4000
    os.utime(half, (past, past))
    MediaCache(tmp_path)
    assert files(tmp_path) == [path]
