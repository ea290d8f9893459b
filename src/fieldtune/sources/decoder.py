"""Decoding that cannot take the program with it: each film is read by a child process that is killed when it hangs.

Jobs and answers are JSON lines, frames come back in a file; nothing foreign is unpickled. A child that crashes, is
killed or exceeds its time costs the one file that it was reading; a fresh child takes the next.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from fieldtune.errors import UserError
from fieldtune.records import MediaKind
from fieldtune.sources.pictures import MediaError, Pixels
from fieldtune.sources.video import Film, Sampler

START_SECONDS = 120.0  # that a child may take to start
COMMAND = (sys.executable, "-P", "-m", "fieldtune.sources.decoding_process")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Failure:
    """A media file that could not be used: which, and why, in one line."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Decoder:
    """Reads media files in child processes. A context manager; its methods may be called from several threads.

    timeout_seconds: that reading a file may take; for decoding, the film's own length comes on top. workers: children
    that read at the same time; they start when they are needed. Every method that reads raises `MediaError` for a file
    that is broken, times out or brings its child down, and `UserError` where a package is missing.
    """

    def __init__(self, timeout_seconds: float = 60.0, workers: int = 1) -> None:
        if timeout_seconds <= 0 or workers < 1:
            raise ValueError(f"a time above 0 and at least one worker are needed, got {timeout_seconds} and {workers}")
        self._seconds = timeout_seconds
        self._folder = Path(tempfile.mkdtemp(prefix="fieldtune-decoder-"))
        self._children = [_Child(self._folder / f"child-{number}.txt") for number in range(workers)]
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        self._numbers = itertools.count()
        self._owner = os.getpid()
        self._closed = False

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children, in the middle of their work or not; nothing in a forked process, whose they are not."""
        if os.getpid() != self._owner:
            return
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().kill()
        for child in self._children:
            child.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file's bytes, in hexadecimal."""
        return str(self._ask("sha256", path, self._seconds)["sha256"])

    def probe(self, path: Path) -> Film:
        """See `video.probe`."""
        return Film(**self._ask("probe", path, self._seconds))

    def check(self, path: Path, kind: MediaKind) -> None:
        """Read a picture or a film to its end."""
        if kind == "image":
            self._ask("image", path, self._seconds)
        else:
            self._ask("check", path, self._time_for(self.probe(path)))

    def image(self, path: Path) -> Pixels:
        """See `pictures.read_image`."""
        return self._pixels("image", path, self._seconds)

    def frames(self, path: Path, choose: Sampler) -> tuple[Film, list[int], Pixels]:
        """A film, the numbers of the frames that a sampler chooses, and those frames [n, height, width, 3] in RGB."""
        film = self.probe(path)
        indices = choose(film)
        return film, indices, self._pixels("decode", path, self._time_for(film), indices=indices)

    def over(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R | Failure]:
        """`work` of each item, in order, as many at a time as there are workers; a `Failure` for a `MediaError`."""

        def attempt(item: T) -> R | Failure:
            try:
                return work(item)
            except MediaError as error:
                return Failure(error.path, error.reason)

        pool = ThreadPoolExecutor(len(self._children))
        waiting: deque[Future[R | Failure]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(attempt, item))
                if len(waiting) >= 2 * len(self._children):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # who leaves early closes the decoder, which ends the rest

    def _time_for(self, film: Film) -> float:
        """Decoding as fast as a film is shown is fast enough; a crafted length is bounded by the number of frames."""
        return self._seconds + min(film.seconds, film.frames)

    def _pixels(self, do: str, path: Path, seconds: float, **more: Any) -> Pixels:
        out = self._folder / f"{next(self._numbers)}.raw"
        try:
            answer = self._ask(do, path, seconds, out=str(out), **more)
            return np.fromfile(out, dtype=np.uint8).reshape(answer["shape"])
        finally:
            out.unlink(missing_ok=True)

    def _ask(self, do: str, path: Path, seconds: float, **more: Any) -> dict[str, Any]:
        if self._closed:
            raise RuntimeError("the decoder is closed")
        if os.getpid() != self._owner:
            raise RuntimeError("the decoder is that of another process, which this one was forked from")
        child = self._idle.get()
        try:
            answer = child.ask({"do": do, "path": str(path.absolute()), **more}, seconds)
        except _Ended as error:
            raise MediaError(path, str(error)) from None
        finally:
            self._idle.put(child)
        if "media" in answer:
            raise MediaError(path, answer["media"])
        if "user" in answer:
            raise UserError(answer["user"])
        if "refused" in answer:
            raise OSError(answer["refused"], os.strerror(answer["refused"]), str(self._folder))
        return answer


class _Ended(Exception):
    """A child ended, or was ended, before its answer; the message says how."""


class _Child:
    """One decoding process. said: the file that its standard error goes to."""

    def __init__(self, said: Path) -> None:
        self._said = said
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def ask(self, job: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a job; raises `_Ended`."""
        try:
            process = self._running()
            self._send(process, {**job, "seconds": seconds})
            answer = self._answer(process, seconds)
            if answer is None:
                raise _Ended(f"was not read within {seconds:g} s")
        except BaseException:
            self.kill()  # its answer, should it still come, must not be taken for that to the next job
            raise
        return answer

    def end(self) -> None:
        """End the process; whoever waits for its answer finds out."""
        process = self._process
        if process is not None:
            process.kill()

    def kill(self) -> None:
        """End the process and forget it. Only by whoever holds this child."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # what was not yet sent is lost with the child

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, started if there is none or it has ended while it was idle."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        self._read = b""
        with self._said.open("wb") as said:
            process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        self._process = process
        try:
            ready = self._answer(process, START_SECONDS)
        except _Ended as error:
            raise RuntimeError(f"the decoding process did not start: it {error}") from None
        if ready is None:
            raise RuntimeError(f"the decoding process did not start within {START_SECONDS:g} s")
        return process

    def _send(self, process: subprocess.Popen[bytes], job: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise _Ended(self._how_it_ended(process)) from None

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """The next line of the process; None if the time is over. Raises `_Ended`."""
        assert process.stdout is not None
        descriptor, deadline = process.stdout.fileno(), time.monotonic() + seconds
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        while b"\n" not in self._read:
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            more = os.read(descriptor, 65536)
            if not more:
                raise _Ended(self._how_it_ended(process))
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _how_it_ended(self, process: subprocess.Popen[bytes]) -> str:
        status = process.wait()
        if status < 0:
            return f"brought its decoder down ({signal.Signals(-status).name})"
        last = self._said.read_text("utf-8", "replace").strip().rpartition("\n")[2] if self._said.exists() else ""
        return f"brought its decoder down (status {status}{': ' if last else ''}{last[:200]})"
