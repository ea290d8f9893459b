"""The decode loop of a server: requests join the running batch between steps and leave it when they are done."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from fieldtune.errors import UserError
from fieldtune.models.constrained import Constraint
from fieldtune.models.decode import Chooser, Prompt, RaggedBatch, positions, vocabulary_width
from fieldtune.models.generate import Answer, Sampling
from fieldtune.models.prefixes import Prefixes
from fieldtune.models.tokenizer import Tokenizer
from fieldtune.serving.text_stream import TextStream

log = logging.getLogger("fieldtune")

PREFILL_TOKENS = 256  # of a new prompt between two steps of the running answers


class QueueFull(Exception):
    """As many requests wait as may wait."""


@dataclass(frozen=True, slots=True)
class Request:
    """ids: the prompt. stops: texts before which the answer ends. schema: a JSON schema the answer is held to."""

    ids: Sequence[int]
    sampling: Sampling
    stops: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """reason: `stop` (the model's own end, a stop text, a whole document), `length` or `canceled`.

    tokens: generated, without the end token.
    """

    reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer cannot be had; mendable: by another request."""

    message: str
    mendable: bool


Event = str | Finished | Failed  # text; the last event is one of the others
Listener = Callable[[Event], None]


@dataclass(eq=False, slots=True)
class Job:
    """A request on its way. The listener is called by the engine's thread."""

    request: Request
    listener: Listener
    prompt: Prompt
    chooser: Chooser
    text: TextStream
    limit: int  # tokens of the answer at most
    tokens: list[int] = field(default_factory=list)
    canceled: bool = False

    def cancel(self) -> None:
        """Give the answer up; a finished one does not mind."""
        self.canceled = True


class Engine:
    """Answers by one model, in a thread of its own; use as a context manager.

    slots: answers decoded at once. queue: requests that may wait besides. context: tokens of a prompt and its answer at
    most; never more than the model's positions. reuse: tokens of earlier prompts that are kept for prompts that begin
    the same way.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, *, context: int, slots: int = 8, queue: int = 64, reuse: int = 0
    ) -> None:
        self._model, self._tokenizer, self._slots, self._queue = model, tokenizer, slots, queue
        self.context = min(context, positions(model))
        self._width = vocabulary_width(model)
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._starting: Job | None = None
        self._running: list[Job] = []  # in the order of the batch's rows
        self._batch = RaggedBatch(model)
        self._reuse, self._prefixes = reuse, Prefixes(reuse)
        self._closing = False
        self.steps = 0  # decode steps done
        self.tokens = 0  # tokens generated
        self.reused = 0  # tokens of prompts that an earlier prompt had computed
        self._thread = threading.Thread(target=self._work, name="decode", daemon=True)

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            for job in self._all():
                job.cancel()
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running) + (self._starting is not None)

    def submit(self, request: Request, listener: Listener) -> Job:
        """Queue a request. `UserError` for a prompt that is too long or a bad schema, `QueueFull` if too many wait."""
        room = self.context - len(request.ids)
        if room < 1:
            raise UserError(
                f"the prompt has {len(request.ids):,} tokens; the model's context is {self.context:,}, answer included"
            )
        if self.waiting >= self._queue:  # before the work on a schema
            raise QueueFull
        held = None if request.schema is None else Constraint(self._tokenizer, request.schema, self._width)
        job = Job(
            request,
            listener,
            Prompt(request.ids),
            Chooser(request.sampling, held),
            TextStream(self._tokenizer.decode, request.stops),
            min(room, request.sampling.max_new_tokens),
        )
        with self._changed:
            if self._closing or len(self._waiting) >= self._queue:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify()
        return job

    def answer(self, request: Request) -> Answer:
        """The whole answer to one request, from any thread but the engine's. Errors of `submit`, or RuntimeError."""
        events: SimpleQueue[Event] = SimpleQueue()
        self.submit(request, events.put)
        text = ""
        while isinstance(event := events.get(), str):
            text += event
        if isinstance(event, Failed):
            raise UserError(event.message) if event.mendable else RuntimeError(event.message)
        return Answer(text.strip(), event.tokens, event.reason == "stop")

    def _all(self) -> list[Job]:
        return [*self._waiting, *([self._starting] if self._starting else []), *self._running]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or bool(self._all()))
                if self._closing and not self._all():
                    return
                if self._starting is None and self._waiting and len(self._running) < self._slots:
                    self._starting = self._waiting.popleft()
            try:
                self._turn()
            except Exception:
                log.exception("a decode step failed")
                self._fail_all("the server could not compute an answer; its log says why")

    def _turn(self) -> None:
        """Drop who gave up, take a new prompt some way, then give each running answer a token."""
        with self._changed:
            for job in [job for job in self._waiting if job.canceled]:
                self._waiting.remove(job)
                job.listener(Finished("canceled", 0))
        self._leave([job for job in self._running if job.canceled], "canceled")
        if self._starting is not None:
            self._start(self._starting)
        if self._running:
            logits = self._batch.step([job.tokens[-1] for job in self._running])
            self.steps += 1
            reasons = {job: self._take(job, row) for job, row in zip(list(self._running), logits, strict=True)}
            for reason in {reason for reason in reasons.values() if reason}:
                self._leave([job for job, found in reasons.items() if found == reason], reason)

    def _start(self, job: Job) -> None:
        if job.canceled:
            self._starting = None
            job.listener(Finished("canceled", 0))
            return
        if job.prompt.done == 0:
            self.reused += self._prefixes.begin(job.prompt)
        logits = job.prompt.advance(self._model, PREFILL_TOKENS)
        if logits is None:
            return
        self._prefixes.keep(job.prompt)
        self._starting = None
        reason = self._take(job, logits)
        if reason:
            self._end(job, reason)
        else:
            self._batch.join(job.prompt)
            self._running.append(job)

    def _take(self, job: Job, logits: Any) -> str:
        """Choose the answer's next token and pass its text on; the reason if the answer ends with it."""
        try:
            token = job.chooser.pick(logits)
        except UserError as error:  # a grammar too large to be followed
            job.listener(Failed(str(error), mendable=True))
            return "failed"
        if token in self._tokenizer.stop_ids:
            return "stop"
        job.tokens.append(token)
        self.tokens += 1
        text = job.text.push(token)
        if text:
            job.listener(text)
        if job.text.stopped or job.chooser.ended:
            return "stop"
        return "length" if len(job.tokens) >= job.limit else ""

    def _leave(self, jobs: Sequence[Job], reason: str) -> None:
        if not jobs:
            return
        self._batch.keep([row for row, job in enumerate(self._running) if job not in jobs])
        self._running = [job for job in self._running if job not in jobs]
        for job in jobs:
            self._end(job, reason)

    @staticmethod
    def _end(job: Job, reason: str) -> None:
        if reason == "failed":
            return  # said already
        rest = job.text.end()
        if rest:
            job.listener(rest)
        # A stop text may come out only with what was held back.
        job.listener(Finished("stop" if job.text.stopped else reason, len(job.tokens)))

    def _fail_all(self, message: str) -> None:
        jobs = [*([self._starting] if self._starting else []), *self._running]
        self._starting, self._running, self._batch = None, [], RaggedBatch(self._model)
        self._prefixes = Prefixes(self._reuse)  # perhaps there was no memory left
        for job in jobs:
            job.listener(Failed(message, mendable=False))
