"""The MobileGPT form of a row with pictures or a film: conversations with `<image>` or `<video>` where they stand.

    {"id": "qved-000017", "video": "clips/00000017.mp4", "conversations": [
        {"from": "human", "value": "<video>\\nHow is this squat?"}, {"from": "gpt", "value": "..."}]}

LLaVA's files are the same with `image`, a path or a list of paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fieldtune.records import Example, Media, RecordError

SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
_PLACE = re.compile(r"(<(?:video|image)>)")


def with_media(turns: Sequence[Mapping[str, str]], raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns {role, content} of a row, its media as parts where their placeholders stand.

    One film may have any number of placeholders (the original writes 16 `<image>` for its frames): the first one
    counts. Pictures have one each. Without any, the media come first in the first user turn. A row without media is
    left as it is. RecordError says what does not fit.
    """
    waiting = _media(raw)
    if not waiting:
        return [dict(turn) for turn in turns]
    film, total, placed = waiting[0]["type"] == "video", len(waiting), 0
    made: list[dict[str, Any]] = []
    for turn in turns:
        if turn["role"] != "user":
            made.append(dict(turn))
            continue
        parts: list[dict[str, str]] = []
        for piece in _PLACE.split(turn["content"]):
            if not _PLACE.fullmatch(piece):
                parts += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
            elif placed < total:
                parts.append(waiting[placed])
                placed += 1
            elif not film:
                raise RecordError(f"there are more <image> than images ({total})")
        made.append({"role": "user", "content": parts or ""})
    if placed == 0:
        return _in_front(made, waiting)
    if placed < total:
        raise RecordError(f"there are {total} images but {placed} <image>")
    return made


def _media(raw: Mapping[str, Any]) -> list[dict[str, str]]:
    if raw.get("video") is not None and raw.get("image") is not None:
        raise RecordError("both 'video' and 'image' are given; keep one")
    for kind in ("video", "image"):
        given = raw.get(kind)
        if given is None:
            continue
        paths = given if isinstance(given, list) else [given]
        if not paths or any(not isinstance(path, str) or not path.strip() for path in paths):
            raise RecordError(f"{kind!r} must be a path" + (" or a list of paths" if kind == "image" else ""))
        if kind == "video" and len(paths) > 1:
            raise RecordError("'video' must be one path")
        return [{"type": kind, "path": path} for path in paths]
    return []


def _in_front(turns: list[dict[str, Any]], media: list[dict[str, str]]) -> list[dict[str, Any]]:
    for number, turn in enumerate(turns):
        if turn["role"] == "user":
            turns[number] = {"role": "user", "content": [*media, *(turn["content"] or [])]}
            break
    return turns


def row_of(example: Example) -> dict[str, Any]:
    """An example in this form; `with_media` and its caller read the same turns from it.

    `group` is ours: it keeps one person's rows in one split wherever the file is read. RecordError for pictures beside
    a film and for several films, which the form cannot say.
    """
    media = example.media
    kinds = {part.kind for part in media}
    if len(kinds) > 1 or (kinds == {"video"} and len(media) > 1):
        raise RecordError("a row of this form has pictures or one film")
    paths = [part.path for part in media]
    named: dict[str, Any] = {kind: paths[0] if len(paths) == 1 else paths for kind in kinds}
    turns = [
        {"from": SPEAKERS[message.role], "value": "\n".join(_value(part) for part in message.parts)}
        for message in example.messages
    ]
    return {"id": example.id, **named, "group": example.group, "conversations": turns}


def _value(part: str | Media) -> str:
    return part if isinstance(part, str) else f"<{part.kind}>"
