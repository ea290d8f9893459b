"""The bodies of `/v1/chat/completions`: what is read of a request, and what is answered, in OpenAI's form.

What we do not do is refused, not ignored: only fields that cannot change the answer are taken and left unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fieldtune.config import EvaluationConfig
from fieldtune.models.constrained import ANY_OBJECT
from fieldtune.models.generate import Sampling
from fieldtune.records import Message, parse_turns

LARGEST_SEED = 2**63 - 1
STOPS = 4  # as many as OpenAI takes
Stop = Annotated[str, Field(min_length=1, max_length=200)]
OneOrMore = BeforeValidator(lambda given: [given] if isinstance(given, str) else given)


class Form(BaseModel):
    """A part of a request; an unknown field is refused."""

    model_config = ConfigDict(extra="forbid")


class JsonSchema(Form):
    """A schema with the name that OpenAI asks for. It is always followed, `strict` or not."""

    name: str = "answer"
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Form):
    type: Literal["text"]


class ObjectFormat(Form):
    type: Literal["json_object"]


class SchemaFormat(Form):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class StreamOptions(Form):
    include_usage: bool = False
    include_obfuscation: bool | None = None  # of OpenAI's network; nothing here


class ChatForm(Form):
    """A request for an answer. Lists of messages are checked by `fieldtune.records`."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)  # not OpenAI's; 0: all tokens
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Annotated[list[Stop], OneOrMore, Field(max_length=STOPS)] | None = None
    seed: int | None = Field(None, ge=-LARGEST_SEED, le=LARGEST_SEED)
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    # Taken when they ask for what is done anyway.
    n: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    # Taken and left unread: they say who asks, not what.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages; OpenAI's `developer` is a system message. `RecordError` says what is wrong."""
        plain = [
            {**message, "role": "system"} if message.get("role") == "developer" else message
            for message in self.messages
        ]
        return parse_turns(plain)

    @property
    def schema_of_answer(self) -> Mapping[str, Any] | None:
        """The JSON schema that the answer is held to."""
        if isinstance(self.response_format, SchemaFormat):
            return self.response_format.json_schema.json_schema
        return ANY_OBJECT if isinstance(self.response_format, ObjectFormat) else None

    def sampling(self, defaults: EvaluationConfig, *, most: int, seed: int) -> Sampling:
        """How tokens are chosen. What is not said is as in the run's evaluation; most: tokens if no number is given."""
        own = self.temperature is not None or self.top_p is not None
        return Sampling(
            max_new_tokens=self.max_completion_tokens or self.max_tokens or most,
            temperature=defaults.temperature if self.temperature is None else self.temperature,
            top_k=self.top_k if self.top_k is not None else 0 if own else defaults.top_k,
            seed=seed if self.seed is None else self.seed,
            top_p=1.0 if self.top_p is None else self.top_p,
        )


def usage(prompt: int, answer: int) -> dict[str, int]:
    """Tokens of a prompt and its answer."""
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def completion(head: Mapping[str, Any], text: str, reason: str, tokens: Mapping[str, int]) -> dict[str, Any]:
    """A whole answer. head: id, time and model."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": tokens}


def chunk(head: Mapping[str, Any], delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    """A piece of a streamed answer."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def usage_chunk(head: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """The last piece of a stream whose request asked for its usage."""
    return {**head, "object": "chat.completion.chunk", "choices": [], "usage": tokens}
