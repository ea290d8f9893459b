"""The engine in this process: answers of a busy batch, limits, who gives up, and what fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest

from fieldtune.errors import UserError
from fieldtune.models.generate import Sampling, generate
from fieldtune.records import Message
from fieldtune.runs import Run
from fieldtune.serving.engine import Engine, Event, Failed, Finished, QueueFull, Request
from fieldtune.serving.predictor import Predictor

from .conftest import CONTEXT

WORDS = ["Hi", "How are you on this fine day?", "x" * 400, "Name a club.", "", "Zwölf Boxkämpfer", "go", "a b c d"]
SCHEMA = {
    "type": "object",
    "properties": {"minutes": {"type": "integer", "minimum": 5, "maximum": 480}},
    "required": ["minutes"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def predictor(chat_run: Run) -> Predictor:
    return Predictor(chat_run.folder)


@pytest.fixture(scope="module")
def model(predictor: Predictor) -> Iterator[Any]:
    with predictor.model() as model:
        yield model


def engine_of(model: Any, predictor: Predictor, **settings: int) -> Engine:
    return Engine(model, predictor.tokenizer, **{"context": CONTEXT, **settings})


def ids_of(predictor: Predictor, text: str) -> list[int]:
    return predictor.encode([Message("user", (text,))])


def requests(predictor: Predictor) -> list[Request]:
    """Greedy, sampled and constrained ones of different lengths."""
    made = []
    for number, text in enumerate(WORDS):
        schema = SCHEMA if number % 3 == 2 else None
        tokens = 20 + 7 * number if schema is None else 200  # each a byte, and blanks are allowed
        sampling = Sampling(tokens, 0.9 * (number % 2), 0, seed=number, top_p=0.95)
        made.append(Request(ids_of(predictor, text), sampling, schema=schema))
    return made


def test_answers_of_a_batch_are_those_alone(model: Any, predictor: Predictor) -> None:
    with engine_of(model, predictor, slots=1) as engine:
        alone = [engine.answer(request) for request in requests(predictor)]
    with engine_of(model, predictor, slots=5) as engine, ThreadPoolExecutor(len(WORDS)) as pool:
        assert list(pool.map(engine.answer, requests(predictor))) == alone
        assert engine.steps < sum(answer.tokens for answer in alone)  # several a step
        assert engine.running == engine.waiting == 0
    assert len({answer.text for answer in alone}) > 5
    for request, answer in zip(requests(predictor), alone, strict=True):
        if request.schema is None and request.sampling.temperature == 0:
            assert generate(model, predictor.tokenizer, [request.ids], request.sampling) == [answer]
        elif request.schema is not None:
            assert answer.ended and 5 <= json.loads(answer.text)["minutes"] <= 480


def test_prompts_that_begin_alike_are_answered_as_without_reuse(model: Any, predictor: Predictor) -> None:
    rules, beginning = "Answer in one word, and never about clubs. " * 12, len(ids_of(predictor, "Ab")) - 2
    texts = [f"{rules}{word}" for word in WORDS] + [rules, "x" * 900, f"{rules}{WORDS[0]} And then?", "x" * 899]
    wanted = [Request(ids_of(predictor, text), Sampling(25, 0.8 * (n % 2), 0, seed=n)) for n, text in enumerate(texts)]
    constrained = [Request(request.ids, Sampling(200), schema=SCHEMA) for request in wanted[:3]]
    wanted += constrained
    with engine_of(model, predictor) as engine:
        expected = [engine.answer(request) for request in wanted]
        assert engine.reused == 0
    with engine_of(model, predictor, slots=4, reuse=4000) as engine, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(engine.answer, wanted)) == expected
        assert engine.reused > 9 * len(rules) + 890 + beginning
    with engine_of(model, predictor, reuse=100) as engine:  # room for a part of one prompt
        assert [engine.answer(request) for request in wanted] == expected
        assert 100 * 5 < engine.reused <= 100 * len(wanted)


def test_limits(model: Any, predictor: Predictor) -> None:
    with engine_of(model, predictor) as engine:
        with pytest.raises(UserError, match="the prompt has 1,100 tokens; the model's context is 1,024, answer"):
            engine.answer(Request([1] * 1100, Sampling(5)))
        assert engine.answer(Request([1] * 1020, Sampling(50))).tokens <= 4
        with pytest.raises(UserError, match="the JSON schema cannot be used: Invalid type"):
            engine.answer(Request([1], Sampling(5), schema={"type": "objekt"}))


def test_a_stop_text_ends_an_answer(model: Any, predictor: Predictor) -> None:
    ids = ids_of(predictor, "Hi")
    with engine_of(model, predictor) as engine:
        whole = engine.answer(Request(ids, Sampling(60))).text
        stop = next(letter for letter in whole[5:] if letter.isprintable() and letter not in " \ufffd")
        answer = engine.answer(Request(ids, Sampling(60), stops=("never here", stop)))
        assert answer.text == whole[: whole.index(stop)].strip() and answer.ended


class Held:
    """Keeps the engine at a step until `go` is set."""

    def __init__(self, model: Any) -> None:
        self.go, self.there = threading.Event(), threading.Event()
        self._hook = model.register_forward_pre_hook(self._wait)

    def _wait(self, *given: Any) -> None:
        self.there.set()
        assert self.go.wait(30)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *given: Any) -> None:
        self.go.set()
        self._hook.remove()


def last(events: SimpleQueue[Event]) -> Finished | Failed:
    while isinstance(event := events.get(timeout=30), str):
        pass
    return event


def test_a_full_queue_refuses_and_a_canceled_request_leaves(model: Any, predictor: Predictor) -> None:
    request = Request(ids_of(predictor, "Hi"), Sampling(900))
    first, second, third = SimpleQueue[Event](), SimpleQueue[Event](), SimpleQueue[Event]()
    with engine_of(model, predictor, slots=1, queue=1) as engine, Held(model) as held:
        running = engine.submit(request, first.put)
        assert held.there.wait(30)
        waiting = engine.submit(request, second.put)
        with pytest.raises(QueueFull):
            engine.submit(request, third.put)
        assert (engine.running, engine.waiting) == (1, 1)
        waiting.cancel()
        running.cancel()
        held.go.set()
        assert last(second) == Finished("canceled", 0)
        assert last(first) == Finished("canceled", 2)  # of the prompt and the step that were on their way
        assert engine.answer(Request(request.ids, Sampling(3))).tokens == 3


def test_a_failed_step_fails_those_in_it_and_no_other(model: Any, predictor: Predictor) -> None:
    with engine_of(model, predictor) as engine:
        expected = engine.answer(Request([1, 2], Sampling(5)))

        def fail(*given: Any) -> None:
            raise MemoryError("of a device")

        hook = model.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="the server could not compute an answer; its log says why"):
            engine.answer(Request([1, 2], Sampling(5)))
        hook.remove()
        assert engine.alive and engine.answer(Request([1, 2], Sampling(5))) == expected


def test_closing_ends_what_runs(model: Any, predictor: Predictor) -> None:
    events = SimpleQueue[Event]()
    with engine_of(model, predictor) as engine:
        engine.submit(Request([1, 2, 3], Sampling(1000)), events.put)
        assert isinstance(events.get(timeout=30), str)
    assert not engine.alive and isinstance(last(events), Finished)
    with pytest.raises(QueueFull):
        engine.submit(Request([1], Sampling(1)), events.put)
