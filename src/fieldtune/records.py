"""The one record form of every system: an `Example` of messages, as JSON Lines, with a content hash.

A line of a data set file is one object:

    {"id": "golf-000017", "messages": [{"role": "user", "content": [{"type": "text", "text": "..."}]}, ...],
     "source": "golf", "group": "golf-000017", "meta": {"area": "balance"}}

`content` may also be a plain string. Two text parts in a user message are an instruction and its input
(the Alpaca form); a template decides how they are joined. A picture or a film is a part of its own:

    {"type": "video", "path": "clips/squat-003.mp4", "sha256": "9f2c..."}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fieldtune.errors import UserError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
SPLITS = ("train", "val", "test")
MediaKind = Literal["image", "video"]
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "video")


class RecordError(ValueError):
    """One record is malformed; the message says what was found and what is allowed."""


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a film in a turn.

    path: of its file, absolute or relative to the folder of the file that the record stands in. sha256: of the file's
    bytes, by which the same picture under two names is the same; empty where nobody has read it yet.
    """

    kind: MediaKind
    path: str
    sha256: str = ""

    def to_json(self) -> dict[str, str]:
        known = {"sha256": self.sha256} if self.sha256 else {}
        return {"type": self.kind, "path": self.path, **known}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `parts` are its texts and media, in order (an instruction and its input are two texts)."""

    role: Role
    parts: tuple[str | Media, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts if isinstance(part, str))

    @property
    def media(self) -> tuple[Media, ...]:
        return tuple(part for part in self.parts if isinstance(part, Media))

    @property
    def text(self) -> str:
        """All texts as one, a blank line between them."""
        return "\n\n".join(text for text in self.texts if text)

    def to_json(self) -> dict[str, Any]:
        if len(self.parts) == 1 and self.texts:
            return {"role": self.role, "content": self.texts[0]}
        return {
            "role": self.role,
            "content": [
                part.to_json() if isinstance(part, Media) else {"type": "text", "text": part} for part in self.parts
            ],
        }


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that ends with the answer to be learned.

    id: unique in its data set. source: where it came from (a file, a generator). group: rows that must stay in
    one split (one swing, one athlete, one card); by default the row itself. meta: facts that scoring needs.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    group: str
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the last assistant turn."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The text of the last assistant turn."""
        return self.messages[-1].text

    @property
    def text(self) -> str:
        """All turns as one text: what near-duplicates are judged on."""
        return "\n".join(message.text for message in self.messages)

    @property
    def prompt_text(self) -> str:
        return "\n".join(message.text for message in self.prompt)

    @property
    def media(self) -> tuple[Media, ...]:
        """The media of all turns, in order."""
        return tuple(media for message in self.messages for media in message.media)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "messages": [message.to_json() for message in self.messages],
            "source": self.source,
            "group": self.group,
            "meta": self.meta,
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """A piece of source material that is left out: where it stands, why, and its first 500 characters."""

    path: str
    line: int
    reason: str
    text: str


def parse_messages(raw: Any) -> tuple[Message, ...]:
    """A conversation that ends with an answer, from decoded JSON; `RecordError` names the first thing that is wrong."""
    messages = parse_turns(raw)
    if messages[-1].role != "assistant":
        raise RecordError("the last message must be of role 'assistant': it is what the model learns")
    if not messages[-1].text.strip():
        raise RecordError("the last assistant message is empty: there is nothing to learn")
    return messages


def parse_turns(raw: Any) -> tuple[Message, ...]:
    """Turns of user and assistant in alternation, a system message before them or not; `RecordError` if not so."""
    if not isinstance(raw, list) or not raw:
        raise RecordError("'messages' must be a non-empty list of {role, content}")
    messages = tuple(_parse_message(number, item) for number, item in enumerate(raw))
    body = messages[1:] if messages[0].role == "system" else messages
    for number, message in enumerate(body):
        wanted = ("user", "assistant")[number % 2]
        if message.role != wanted:
            raise RecordError(f"turn {number + 1} must be of role {wanted!r}, got {message.role!r}")
    if not body:
        raise RecordError("there is a system message but no turn")
    return messages


def _parse_message(number: int, raw: Any) -> Message:
    if not isinstance(raw, dict) or "role" not in raw or "content" not in raw:
        raise RecordError(f"message {number + 1} must be an object with 'role' and 'content'")
    role, content = raw["role"], raw["content"]
    if role not in ROLES:
        raise RecordError(f"message {number + 1} has role {role!r}; allowed: {', '.join(ROLES)}")
    if isinstance(content, str):
        return Message(role, (content,))
    if isinstance(content, list) and content:
        return Message(role, tuple(_parse_part(number, part) for part in content))
    raise RecordError(f"message {number + 1} has content that is neither a text nor a list of parts")


def _parse_part(number: int, part: Any) -> str | Media:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in MEDIA_KINDS and isinstance(part.get("path"), str) and part["path"]:
        return Media(kind, part["path"], str(part.get("sha256", "")))
    raise RecordError(
        f"message {number + 1} has a part that is neither {{type: text, text}} nor {{type: image or video, path}}"
    )


def example_from_json(raw: Any) -> Example:
    """An `Example` from one decoded line of our own files; `RecordError` if it is not one."""
    if not isinstance(raw, dict):
        raise RecordError("a line must be a JSON object")
    missing = [key for key in ("id", "messages", "source", "group") if key not in raw]
    if missing:
        raise RecordError(f"missing {', '.join(missing)}")
    meta = raw.get("meta", {})
    if not isinstance(meta, dict):
        raise RecordError("'meta' must be an object")
    return Example(str(raw["id"]), parse_messages(raw["messages"]), str(raw["source"]), str(raw["group"]), meta)


def dump_line(value: Any) -> str:
    """One JSON Lines line, newline included; the same value gives the same bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": ")) + "\n"


def write_jsonl(path: Path, values: Iterable[Any]) -> int:
    """Write decoded JSON values as JSON Lines; returns the number of lines."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(dump_line(value))
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Any]:
    """Decoded lines of a file that we wrote; `UserError` names a line that is not JSON."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not JSON ({error.msg}); prepare the data set again") from None


def read_examples(path: Path) -> Iterator[Example]:
    """The examples of a file that prepare wrote; `UserError` names the line of a broken one."""
    for number, raw in enumerate(read_jsonl(path), 1):
        try:
            yield example_from_json(raw)
        except RecordError as error:
            raise UserError(f"{path}:{number}: {error}; prepare the data set again") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(paths: Iterable[Path]) -> str:
    """Content hash of a set of files: their names and bytes, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
