"""`fieldtune chat` as a process, over a pipe."""

from __future__ import annotations

import signal

import pytest

from fieldtune.models.generate import Sampling
from fieldtune.records import Message
from fieldtune.runs import Run
from fieldtune.serving.predictor import Predictor

from .conftest import started


def chat_lines(run: Run, *lines: str, words: tuple[str, ...] = ()) -> list[str]:
    """What `fieldtune chat` writes when it is given these lines."""
    process = started("chat", f"run={run.folder}", "max_tokens=6", "temperature=0", *words)
    said, problem = process.communicate("".join(f"{line}\n" for line in lines).encode(), timeout=120)
    assert process.returncode == 0, problem
    return said.decode().split("\n")


def test_chat_over_a_pipe(chat_run: Run) -> None:
    (first,) = Predictor(chat_run.folder).answer([[Message("user", ("Hi",))]], Sampling(6))
    found = "\n".join(chat_lines(chat_run, "Hi", "Hi", "/reset", "Hi", "/system Be brief.", "/nonsense", "x" * 2000))
    cut = " [cut: as long as it may be]\n"
    answers = found.split(cut)
    assert answers[0].strip() == first.text
    assert answers[2] == f"A new conversation.\n{answers[0]}"
    assert answers[1] != answers[0]  # it was the second turn
    assert "A new conversation with this system message.\n/nonsense is not a command; /reset" in answers[3]
    assert "the model's context is 1,024, answer included (/reset begins anew)" in answers[3]


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_only(chat_run: Run) -> None:
    for _ in range(20):
        process = started("chat", f"run={chat_run.folder}", "max_tokens=100000", "temperature=0")
        assert process.stdin and process.stdout
        process.stdin.write(b"Hi\n")
        process.stdin.flush()
        assert process.stdout.read(1)  # the answer has begun
        process.send_signal(signal.SIGINT)
        said, problem = process.communicate(b"/reset\n/exit\nnot read\n", timeout=120)
        assert process.returncode == 0, problem
        if b"[cut: " not in said:  # else a busy machine sent the signal when the answer had ended
            break
    assert said.decode(errors="replace").endswith("[stopped]\nA new conversation.\n")
