"""`fieldtune serve` as a process, asked by OpenAI's own client."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

from fieldtune.models.generate import Sampling
from fieldtune.records import Message
from fieldtune.runs import Run
from fieldtune.serving.predictor import Predictor
from fieldtune.serving.server import is_loopback

from .conftest import Served, serving, started

HI: list[Any] = [{"role": "user", "content": "Hi"}]
LONG: list[Any] = [{"role": "user", "content": "x" * 2000}]
WRONG_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "y"}}}


@pytest.fixture(scope="module")
def served(chat_run: Run) -> Iterator[Served]:
    with serving(chat_run, "batch=4") as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Served) -> OpenAI:
    return client_of(served)


def client_of(served: Served, key: str = "any") -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=60)


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": HI, "max_tokens": 12, **more})


def test_it_answers_as_predict_does(client: OpenAI, chat_run: Run) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *HI]
    answer = ask(client, messages=messages, temperature=0)
    prompt = [Message("system", ("Be brief.",)), Message("user", ("Hi",))]
    predictor = Predictor(chat_run.folder)
    (expected,) = predictor.answer([prompt], Sampling(12))
    assert answer.choices[0].message.content.strip() == expected.text
    assert answer.choices[0].finish_reason == "length" and answer.model == "tiny"
    assert answer.usage.prompt_tokens == len(predictor.encode(prompt)) and answer.usage.completion_tokens == 12


def test_a_stream_is_the_same_answer(client: OpenAI) -> None:
    settings = {"temperature": 0.8, "top_p": 0.9, "seed": 3, "max_completion_tokens": 40}
    whole = ask(client, **settings)
    chunks = list(ask(client, **settings, stream=True, stream_options={"include_usage": True}))
    *said, end, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == whole.choices[0].message.content
    assert said[0].choices[0].delta.role == "assistant" and len(said) > 3
    assert end.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.usage == whole.usage and not usage.choices
    assert len({chunk.id for chunk in chunks}) == 1


def test_requests_at_once_are_answered_as_alone(client: OpenAI) -> None:
    def answer(number: int) -> str:
        messages = [{"role": "user", "content": "Say " + "so " * 7 * number}]
        said = ask(client, messages=messages, temperature=number % 2, seed=number, max_tokens=12 + number)
        return str(said.choices[0].message.content)

    alone = [answer(number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(answer, range(6))) == alone
    assert len(set(alone)) == 6


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    action: Literal["keep", "shorten"]
    minutes: int = Field(ge=5, le=480)


def test_json_schema(client: OpenAI) -> None:
    for seed in range(3):
        found = client.chat.completions.parse(
            model="tiny", messages=HI, response_format=Change, temperature=1, seed=seed
        )
        assert isinstance(found.choices[0].message.parsed, Change) and found.choices[0].finish_reason == "stop"
    start = ask(client, response_format={"type": "json_object"}).choices[0].message.content
    assert start.startswith("{")
    assert ask(client, response_format={"type": "text"}).choices[0].message.content != start


def test_models_health_and_metrics(client: OpenAI, served: Served) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    health = httpx.get(f"{served.url}/health")
    assert health.status_code == 200 and health.json()["status"] == "ok"
    before = _count(served)
    ask(client)
    assert _count(served) == before + 1
    assert "fieldtune_first_text_seconds_bucket" in httpx.get(f"{served.url}/metrics").text


def _count(served: Served) -> float:
    lines = httpx.get(f"{served.url}/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith('fieldtune_requests_total{outcome="length"}')]
    return float(counted[0].split()[-1]) if counted else 0.0


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({"messages": []}, "messages", "must be a non-empty list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "role 'tool'; allowed: system, user, assistant"),
        ({"messages": [*HI, {"role": "assistant", "content": "x"}]}, "messages", "last message must be of role 'user'"),
        ({"messages": [{"role": "user", "content": "<|end|>"}]}, "messages", "holds '<|end|>', a special token"),
        ({"messages": LONG}, "messages", "2,003 tokens; the model's context is 1,024"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"n": 2}, "n", "should be 1"),
        ({"stop": ["a"] * 5}, "stop", "at most 4 items"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools", "tools is not supported"),
        ({"extra_body": {"best_of": 2}}, "best_of", "best_of is not supported"),
        ({"response_format": WRONG_SCHEMA}, "response_format", "Invalid type: y"),
    ],
)  # fmt: skip
def test_bad_input(client: OpenAI, given: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **given)
    body: Any = caught.value.body
    assert said in body["message"] and "\n" not in body["message"]
    assert body["param"] == param and body["type"] == "invalid_request_error"
    assert (body["code"] == "context_length_exceeded") == ("context is" in said)


def test_what_is_not_there(client: OpenAI, served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-9' is not served here; there is: tiny"):
        ask(client, model="gpt-9")
    url = f"{served.url}/v1/chat/completions"
    assert httpx.post(f"{served.url}/v1/completions", json={}).json()["error"]["message"].endswith("Not Found")
    assert httpx.get(url).status_code == 405
    broken = httpx.post(url, content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 400 and "the body is not JSON" in broken.json()["error"]["message"]


def test_what_is_too_large_or_for_another_host_is_said_in_the_same_form(served: Served) -> None:
    url, large = f"{served.url}/v1/chat/completions", b" " * (9 * 2**20)
    for body in (large, iter([large[: 2**20]] * 9)):  # with a length, and without
        found = httpx.post(url, content=body)
        assert found.status_code == 413 and found.json()["error"]["message"].endswith("the body has more than 8 MiB")
    for host in ("elsewhere.example", "localhost.elsewhere.example:80", "", "[::1", "[::2]:80"):
        found = httpx.get(f"{served.url}/v1/models", headers={"host": host})
        assert found.status_code == 400, host
        assert found.json()["error"]["code"] == "wrong_host" and "127.0.0.1" in found.json()["error"]["message"]
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8000"):
        assert httpx.get(f"{served.url}/v1/models", headers={"host": host}).status_code == 200


def test_who_goes_away_leaves_the_batch(client: OpenAI, served: Served) -> None:
    stream = ask(client, stream=True, max_tokens=None)
    next(iter(stream))
    stream.close()
    health: dict[str, Any] = {"running": 1}
    while health["running"]:
        health = httpx.get(f"{served.url}/health").json()
    assert 'outcome="canceled"' in httpx.get(f"{served.url}/metrics").text


def test_a_key_a_full_queue_and_a_graceful_end(chat_run: Run) -> None:
    with serving(chat_run, "host=0.0.0.0", "batch=1", "queue=1", "system=base", key="the-key") as served:
        for key in ("wrong", "the-key2", "the-ke"):
            with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
                client_of(served, key).models.list()
        assert httpx.get(f"{served.url}/metrics").status_code == 401
        assert httpx.get(f"{served.url}/health").json()["model"] == "tiny-base"
        client = client_of(served, "the-key")
        assert [model.id for model in client.models.list()] == ["tiny-base"]
        long: dict[str, Any] = {"model": "tiny-base", "stream": True, "max_tokens": 400, "seed": 1}
        running = iter(ask(client, **long))
        while not next(running).choices[0].delta.content:
            pass
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, client, model="tiny-base")
            while not httpx.get(f"{served.url}/health").json()["waiting"]:
                pass
            with pytest.raises(openai.RateLimitError, match="too many requests wait already"):
                ask(client, model="tiny-base")
            served.process.send_signal(signal.SIGTERM)
            *_, end = running
            assert end.choices[0].finish_reason in ("length", "stop")
            assert waiting.result().usage.completion_tokens
        assert served.process.wait(30) == 128 + signal.SIGTERM


def refused(*words: str, **environment: str) -> str:
    process = started(*words, **environment)
    said, problem = process.communicate(timeout=120)
    assert process.returncode == 2 and said == b"" and problem.count(b"\n") == 1, problem
    return problem.decode()


def test_a_server_that_cannot_be_started(chat_run: Run) -> None:
    run = f"run={chat_run.folder}"
    open_host = refused("serve", run, "host=0.0.0.0", FIELDTUNE_API_KEY="")
    assert open_host.startswith("host=0.0.0.0 is open to other machines, so callers need a key: set FIELDTUNE_API_KEY")
    assert "port=99999 is not allowed; give a whole number from 0 to 65,535" in refused("serve", run, "port=99999")
    assert "batch=x is not allowed" in refused("serve", run, "batch=x")
    assert "is not a run folder" in refused("serve", "run=absent", "port=0")
    assert "did you mean port?" in refused("serve", run, "prot=1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1 port {port} cannot be used" in refused("serve", run, f"port={port}")


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.2", "example.org", ""))
