"""`fieldtune chat`: a conversation with a run's model in the terminal, or over a pipe.

/reset begins anew, /system TEXT does so with a system message, /exit ends. Ctrl-C stops an answer, not the program.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import replace
from queue import SimpleQueue

from fieldtune.errors import UserError
from fieldtune.models.generate import Sampling
from fieldtune.records import Message
from fieldtune.serving.engine import Engine, Event, Failed, Finished, Request
from fieldtune.serving.predictor import Predictor

HELP = "/reset begins anew; /system TEXT does so with a system message; /exit ends; Ctrl-C stops an answer"


def chat(run: str, *, system: str, device: str, temperature: float | None, tokens: int) -> None:
    """Talk until /exit or the end of the input. temperature None: the run's. tokens: of an answer at most."""
    predictor = Predictor(run, device=device, system=system)
    sampling = replace(predictor.sampling(), max_new_tokens=tokens)
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature, top_k=0)
    context = predictor.config.model.context_length
    with predictor.model() as model, Engine(model, predictor.tokenizer, context=context, slots=1) as engine:
        _Talk(predictor, engine, sampling).run()


class _Talk:
    def __init__(self, predictor: Predictor, engine: Engine, sampling: Sampling) -> None:
        self._predictor, self._engine, self._sampling = predictor, engine, sampling
        self._start: list[Message] = []  # a system message, or nothing
        self._turns: list[Message] = []
        self._terminal = sys.stdin.isatty()

    def run(self) -> None:
        if self._terminal:
            import readline  # noqa: F401  (line editing and history for `input`)

            print(HELP)
        while True:
            try:
                line = input("> " if self._terminal else "").strip()
                if line == "/exit":
                    return
                if line.startswith("/"):
                    self._command(line)
                elif line:
                    self._say(line)
            except EOFError:
                return
            except KeyboardInterrupt:  # not while an answer came
                print("\n/exit ends")

    def _command(self, line: str) -> None:
        name, _, text = line.partition(" ")
        if name not in ("/reset", "/system"):
            print(f"{name} is not a command; {HELP}")
            return
        self._turns = []
        if name == "/system":
            self._start = [Message("system", (text.strip(),))] if text.strip() else []
        print("A new conversation" + (" with this system message." if self._start else "."))

    def _say(self, line: str) -> None:
        turns = [*self._turns, Message("user", (line,))]
        sampling = replace(self._sampling, seed=secrets.randbits(63))
        try:
            answer = self._answer(Request(self._predictor.encode([*self._start, *turns]), sampling))
        except UserError as error:
            print(f"{error} (/reset begins anew)")
            return
        if answer:  # of one that was stopped, what was said
            self._turns = [*turns, Message("assistant", (answer,))]

    def _answer(self, request: Request) -> str:
        """The answer, shown as it comes; Ctrl-C stops it."""
        events: SimpleQueue[Event] = SimpleQueue()
        job, said = self._engine.submit(request, events.put), ""
        while True:
            try:
                event = events.get()
                if isinstance(event, str):
                    said += event
                    print(event, end="", flush=True)
                    continue
            except KeyboardInterrupt:
                job.cancel()
                continue
            print(_ending(event), flush=True)
            return said


def _ending(event: Finished | Failed) -> str:
    """What ends the line of an answer."""
    if isinstance(event, Failed):
        return f" [{event.message}]"
    return {"length": " [cut: as long as it may be]", "canceled": " [stopped]"}.get(event.reason, "")
