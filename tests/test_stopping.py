"""Signals: one lets a step end, the same one sent twice over is one, a later second one ends the process at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fieldtune import stopping

START = "import hashlib, os, signal, sys, time\nfrom fieldtune import stopping\n"
# A computation that lets other threads run but no handler of Python's: a long backward pass is like that.
LONG = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)\n"


def process(code: str) -> subprocess.Popen[str]:
    """A process that runs `code` and has printed a line."""
    started = subprocess.Popen(
        [sys.executable, "-c", START + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_waits_for_the_step_and_gives_its_status(number: signal.Signals) -> None:
    code = "with stopping.handled(), stopping.finishing():\n    print('ready', flush=True)\n"
    code += "    while not stopping.asked(): time.sleep(0.01)\n    print('step done', flush=True)\nprint('not here')"
    started = process(code)
    started.send_signal(number)
    output, errors = started.communicate(timeout=30)
    assert (started.returncode, output, errors) == (128 + number, "step done\n", "")


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_without_a_step_to_finish_a_signal_ends_at_once_and_in_order(number: signal.Signals) -> None:
    code = "with stopping.handled():\n    try:\n        print('ready', flush=True); time.sleep(60)\n"
    started = process(code + "    finally: print('cleaned up', flush=True)")
    started.send_signal(number)
    output, errors = started.communicate(timeout=30)
    assert (started.returncode, output, errors) == (128 + number, "cleaned up\n", "")


def test_a_second_signal_ends_a_long_computation(number: signal.Signals = signal.SIGTERM) -> None:
    started = process(f"with stopping.handled(), stopping.finishing():\n    print('ready', flush=True); {LONG}")
    started.send_signal(number)
    time.sleep(stopping.SAME + 0.5)
    assert started.poll() is None
    started.send_signal(number)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 128 + number and errors == "ended at once by a second SIGTERM\n"


def test_the_same_signal_from_two_senders_is_one() -> None:
    """Slurm sends it to the launcher and the worker, and the launcher passes it on."""
    code = "with stopping.handled(), stopping.finishing():\n    print('ready', flush=True)\n"
    code += "    while not stopping.asked(): time.sleep(0.01)\n    time.sleep(3); print('step done', flush=True)"
    started = process(code)
    for _ in range(3):
        started.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    output, _ = started.communicate(timeout=30)
    assert (started.returncode, output) == (143, "step done\n")


def test_a_forked_process_has_its_own_signals() -> None:
    code = "with stopping.handled():\n    child = os.fork()\n    if child == 0: time.sleep(60)\n"
    code += "    os.kill(child, signal.SIGTERM); print('ready', flush=True)\n"
    code += (
        "    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]); print(status, stopping.asked(), flush=True)"
    )
    output, _ = process(code).communicate(timeout=30)
    assert output == "-15 None\n"


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.handled():
        assert [signal.getsignal(number) for number in stopping.SIGNALS] != before
        with pytest.raises(stopping.Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert stopped.value.code == 138 and stopping.asked() == signal.SIGUSR1
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before and stopping.asked() is None
