"""Asked-for ends: at a signal a stage may finish the step it is in; a second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C; `kill`, Slurm and systemd before they kill; what `sbatch --signal=USR1@120` sends before the time limit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# A terminal, Slurm or systemd sends a signal to every process, and the launcher passes it on as well: what comes
# within this time (seconds) after the first one is the same one.
SAME = 1.0


class Stopped(SystemExit):
    """The process was asked to end by `number`; its status is a shell's for that signal."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(128 + number)


class _State:
    handled = False
    asked: int | None = None  # the first signal
    finishing = False  # a stage asked to be left to finish its step


def asked() -> int | None:
    """The signal by which this process was asked to end, or None."""
    return _State.asked


@contextmanager
def handled() -> Iterator[None]:
    """In here a signal of `SIGNALS` raises `Stopped`, or waits for `finishing` to end. Main thread only."""
    _State.handled, _State.asked = True, None
    before = {number: signal.getsignal(number) for number in SIGNALS}
    read, write = os.pipe()
    os.set_blocking(write, False)
    watcher = threading.Thread(target=_end_at_the_second, args=(read,), daemon=True)
    watcher.start()
    descriptor = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    install()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)
        watcher.join()
        _State.handled, _State.asked = False, None


def install() -> None:
    """Take the signals, also back from a library that took them; nothing outside of `handled`. Main thread only."""
    for number in SIGNALS if _State.handled else ():
        signal.signal(number, _on_signal)


@contextmanager
def finishing() -> Iterator[None]:
    """In here a signal only sets `asked`; `Stopped` is raised at the end."""
    _State.finishing = True
    try:
        yield
    finally:
        _State.finishing = False
    if _State.asked is not None:
        raise Stopped(_State.asked)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.asked is None:
        _State.asked = number
        if not _State.finishing:
            raise Stopped(number)


def _end_at_the_second(read: int) -> None:
    """Python's handlers wait for the main thread, which may be in a long computation; this thread sees signals come."""
    first: float | None = None
    while numbers := os.read(read, 1):
        if numbers[0] not in SIGNALS:
            continue
        now = time.monotonic()
        first = now if first is None else first
        if now - first > SAME:
            os.write(2, f"ended at once by a second {signal.Signals(numbers[0]).name}\n".encode())
            os._exit(128 + numbers[0])
    os.close(read)


_forking = threading.local()  # the signals that a thread had blocked before it forks


def _hold() -> None:
    """Signals wait while a process is forked, or the new one would take its first ones as its parent does."""
    _forking.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _go_on() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.blocked)


def _forget() -> None:
    """A forked process is another one: its signals are its own."""
    if _State.handled:
        _State.handled = False
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _go_on()


os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_forget)
