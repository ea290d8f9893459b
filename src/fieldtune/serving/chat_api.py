"""`/v1/models` and `/v1/chat/completions`: OpenAI's API over one model."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from fieldtune.errors import UserError
from fieldtune.records import RecordError
from fieldtune.serving.app import ApiError
from fieldtune.serving.chat_forms import ChatForm, chunk, completion, usage, usage_chunk
from fieldtune.serving.engine import Engine, Event, Failed, Finished, Job, QueueFull
from fieldtune.serving.engine import Request as Wanted
from fieldtune.serving.predictor import Predictor, PromptTooLong
from fieldtune.serving.state import Metrics

LOOK = 1.0  # seconds after which a silent request is asked whether its caller is still there


@dataclass(frozen=True, slots=True)
class Service:
    """What the API needs: the model under its name, and where it is counted."""

    name: str
    predictor: Predictor
    engine: Engine
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Started:
    """A request on its way: its job and what comes of it."""

    head: dict[str, Any]
    job: Job
    events: asyncio.Queue[Event]
    at: float  # seconds of the monotonic clock

    @property
    def prompt(self) -> int:
        return len(self.job.request.ids)


def chat_router(service: Service) -> APIRouter:
    """The routes of OpenAI's API."""
    router = APIRouter(prefix="/v1")
    model = {"id": service.name, "object": "model", "created": int(time.time()), "owned_by": "fieldtune"}

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @router.get("/models/{name:path}")
    async def one(name: str) -> dict[str, Any]:
        _must_be_served(service, name)
        return model

    @router.post("/chat/completions", response_model=None)
    async def chat(form: ChatForm, http: Request) -> Response:
        started = await _start(service, form)
        if not form.stream:
            return await _whole(service, started, http)
        with_usage = form.stream_options is not None and form.stream_options.include_usage
        return StreamingResponse(_lines(service, started, http, with_usage), media_type="text/event-stream")

    return router


def _must_be_served(service: Service, name: str) -> None:
    if name != service.name:
        message = f"the model {name!r} is not served here; there is: {service.name}"
        raise ApiError(404, message, param="model", code="model_not_found")


async def _start(service: Service, form: ChatForm) -> Started:
    """Queue the request; `ApiError` says what is wrong with it."""
    _must_be_served(service, form.model)
    at, events, listener = time.monotonic(), *_mailbox()
    try:
        turns = form.turns
        if turns[-1].role != "user":
            raise RecordError("the last message must be of role 'user': it is what is answered")
    except RecordError as error:
        raise ApiError(400, str(error), param="messages") from None
    try:
        ids = await run_in_threadpool(service.predictor.encode, turns)
    except UserError as error:
        code = "context_length_exceeded" if isinstance(error, PromptTooLong) else ""
        raise ApiError(400, str(error), param="messages", code=code) from None
    settings = service.predictor.config.evaluation
    sampling = form.sampling(settings, most=service.engine.context, seed=secrets.randbits(63))
    wanted = Wanted(ids, sampling, tuple(form.stop or ()), form.schema_of_answer)
    try:
        job = await run_in_threadpool(service.engine.submit, wanted, listener)
    except UserError as error:
        raise ApiError(400, str(error), param="response_format") from None
    except QueueFull:
        service.metrics.requests.labels("refused").inc()
        message = "too many requests wait already; try again later"
        raise ApiError(429, message, kind="rate_limit_error", code="queue_full") from None
    service.metrics.prompt_tokens.inc(len(ids))
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": service.name}
    return Started(head, job, events, at)


def _mailbox() -> tuple[asyncio.Queue[Event], Callable[[Event], None]]:
    """A queue of this event loop, and what the engine's thread calls to put something in."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def put(event: Event) -> None:
        if not loop.is_closed():  # the server was ended by force
            loop.call_soon_threadsafe(events.put_nowait, event)

    return events, put


async def _events(service: Service, started: Started, http: Request) -> AsyncGenerator[Event, None]:
    """What comes of a request, to the last event or until its caller goes; then it leaves the batch."""
    outcome = "canceled"
    try:
        first = True
        while True:
            try:
                event = await asyncio.wait_for(started.events.get(), LOOK)
            except TimeoutError:
                if await http.is_disconnected():
                    return
                continue
            if isinstance(event, str) and first:
                service.metrics.first_text.observe(time.monotonic() - started.at)
                first = False
            if isinstance(event, Finished):
                outcome = event.reason
                service.metrics.answer_tokens.inc(event.tokens)
                service.metrics.whole.observe(time.monotonic() - started.at)
            elif isinstance(event, Failed):
                outcome = "failed"
            yield event
            if not isinstance(event, str) or await http.is_disconnected():
                return
    finally:
        started.job.cancel()
        service.metrics.requests.labels(outcome).inc()


async def _whole(service: Service, started: Started, http: Request) -> Response:
    text = ""
    async with aclosing(_events(service, started, http)) as events:
        async for event in events:
            if isinstance(event, str):
                text += event
            elif isinstance(event, Failed):
                raise _failure(event)
            else:
                tokens = usage(started.prompt, event.tokens)
                return JSONResponse(completion(started.head, text, event.reason, tokens))
    return Response(status_code=499)  # nobody is there to read it


async def _lines(service: Service, started: Started, http: Request, with_usage: bool) -> AsyncIterator[str]:
    """The answer as server-sent events."""
    yield _line(chunk(started.head, {"role": "assistant", "content": ""}))
    async with aclosing(_events(service, started, http)) as events:
        async for event in events:
            if isinstance(event, str):
                yield _line(chunk(started.head, {"content": event}))
            elif isinstance(event, Failed):
                yield _line(_failure(event).body)
            else:
                yield _line(chunk(started.head, {}, event.reason))
                if with_usage:
                    yield _line(usage_chunk(started.head, usage(started.prompt, event.tokens)))
    yield "data: [DONE]\n\n"


def _failure(event: Failed) -> ApiError:
    if event.mendable:
        return ApiError(400, event.message, param="response_format")
    return ApiError(500, event.message, kind="server_error")


def _line(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
