"""Messages to ids: the one place where a conversation becomes tokens, for training, evaluation and serving alike.

Each turn is tokenised as pieces of its own, so that the ids of a prompt in training are the ids at inference by
construction, not by luck of the tokenizer. A picture becomes as many ids as it will have places (see `data.media`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import TemplateError

from fieldtune.config import TemplateKind
from fieldtune.data.media import CONTENTS, MediaReader, Shown
from fieldtune.errors import UserError
from fieldtune.models.tokenizer import Tokenizer
from fieldtune.records import MediaKind, Message

ALPACA_HEADER = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)


class EncodeError(ValueError):
    """A row cannot be encoded; the message says why."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """ids: token ids [length], below 0 for the places of pictures. trained: whether a token is one that the loss counts
    [length]. positions [axes, length]: where a model has more of them for a token than its number."""

    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    positions: npt.NDArray[np.int64] | None = None

    @property
    def media(self) -> list[Shown]:
        """Its pictures, in order."""
        return [shown for _, shown in CONTENTS.in_order(self.ids)]

    @property
    def supervised(self) -> int:
        """Tokens that the loss counts. The first token of a row is predicted from nothing, so never counts."""
        return int(self.trained[1:].sum())

    @property
    def inputs(self) -> int:
        """Tokens that a forward pass needs: up to the one that predicts the last label. 0: no label."""
        labels = np.flatnonzero(self.trained[1:])
        return int(labels[-1]) + 1 if len(labels) else 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a conversation and its ids; `trained`: an assistant's words or the end of its turn."""

    text: str
    ids: list[int]
    trained: bool


class Encoder:
    """encode() for one tokenizer and template; with a reader, of rows with pictures too."""

    def __init__(self, tokenizer: Tokenizer, template: TemplateKind, reader: MediaReader | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.reader = reader

    def row(self, messages: Sequence[Message], *, train_on_prompt: bool = False) -> Encoded:
        """A whole conversation. Trained are the assistant's words and one end token a turn, or with
        `train_on_prompt` every token; `EncodeError` if a text holds a special token's text, or a picture that cannot be
        shown to this model."""
        pieces = list(self._pieces(messages))
        ids = np.fromiter((i for piece in pieces for i in piece.ids), dtype=np.int32)
        trained = np.repeat([piece.trained or train_on_prompt for piece in pieces], [len(p.ids) for p in pieces])
        positions = self.reader.positions(ids) if self.reader else None
        return Encoded(ids, trained.astype(np.bool_) & (ids >= 0), positions)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything before an answer, the start of the assistant's turn and places of pictures included."""
        return [index for piece in self._pieces([*messages, None]) for index in piece.ids]

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The text that those ids were made of, special tokens as they are written, a placeholder for a picture."""
        return "".join(piece.text for piece in self._pieces([*messages, None]))

    def _pieces(self, messages: Sequence[Message | None]) -> Iterator[Piece]:
        """Pieces of a conversation; a last message None stands for the turn that is to be generated."""
        for message in messages:
            specials = self.tokenizer.specials_in(message.text) if message else []
            if specials:
                raise EncodeError(f"the text holds {specials[0]!r}, a special token of this model")
        shown = self._shown([message for message in messages if message])
        if self.template is TemplateKind.alpaca:
            yield from self._alpaca(messages)
        else:
            yield from self._chat(messages, shown)

    def _shown(self, messages: Sequence[Message]) -> list[Shown]:
        """The pictures of a conversation, in order."""
        media = [one for message in messages for one in message.media]
        if not media:
            return []
        if self.reader is None:
            raise EncodeError(f"it holds {media[0].path}, and this model does not see; give a model= that does")
        if self.template is TemplateKind.alpaca:
            raise EncodeError(f"it holds {media[0].path}, for which model.template=alpaca has no place; give chat")
        if any(message.media for message in messages if message.role != "user"):
            raise EncodeError("a picture stands in a turn that is not the user's")
        return [self.reader.shown(one, len(media)) for one in media]

    def _alpaca(self, messages: Sequence[Message | None]) -> Iterator[Piece]:
        encode, system, before = self.tokenizer.encode, "", ALPACA_HEADER + "\n\n"
        for message in messages:
            if message is None:
                continue
            if message.role == "system":
                system = message.text + "\n\n"
            elif message.role == "user":
                instruction, rest = message.texts[0], "\n\n".join(text for text in message.texts[1:] if text)
                text = f"{before}### Instruction:\n{system}{instruction}"
                text += f"\n\n### Input:\n{rest}" if rest else ""
                text += "\n\n### Response:\n"
                yield Piece(text, encode(text), trained=False)
                system, before = "", "\n\n"
            else:
                yield self._ended(message.text, encode(message.text))

    def _chat(self, messages: Sequence[Message | None], shown: list[Shown]) -> Iterator[Piece]:
        """The tokenizer's template, rendered up to each assistant turn: what it adds for a turn is that turn."""
        messages = self._folded(messages)
        plain = [{"role": message.role, "content": self._content(message)} for message in messages if message]
        rendered = ""
        for number, message in enumerate(messages):
            if message is not None and message.role != "assistant":
                continue
            opened = self._rendered(plain[:number], open_turn=True)
            self._must_extend(opened, rendered)
            turn = opened[len(rendered) :]
            ids = self._turn_ids(turn, shown)
            yield Piece(turn, ids if rendered else [*self._opening(turn), *ids], trained=False)
            if message is None:
                break
            rendered = self._rendered(plain[: number + 1], open_turn=False)
            yield from self._answer(self._after(opened, rendered, message.text))
        if shown:
            raise EncodeError("the model's chat template has no place for its picture")

    def _content(self, message: Message) -> str | list[dict[str, str]]:
        """What the chat template is given of a message."""
        if not message.media:
            return message.text
        if self.reader is None or not self.reader.in_text:
            return _in_parts(message)
        shown = [self.reader.placeholders[one.kind] for one in message.media]
        return "\n".join([*shown, message.text] if message.text else shown)

    def _turn_ids(self, turn: str, shown: list[Shown]) -> list[int]:
        """Ids of a turn's text, in which the next pictures of `shown` stand for its placeholders and are taken away."""
        if self.reader is None:
            return self.tokenizer.encode(turn, special=True)
        kinds = {text: kind for kind, text in self.reader.placeholders.items()}
        mine: list[Shown] = []
        text = ""
        for part in re.split(f"({'|'.join(map(re.escape, kinds))})", turn):
            if part in kinds:
                mine.append(self._taken(shown, part, kinds[part]))
                part = self.reader.text(mine[-1])
            text += part
        ids = np.array(self.tokenizer.encode(text, special=True))
        places = np.concatenate([np.zeros(0, dtype=np.int64), *(one.ids for one in mine)])
        there = np.isin(ids, list(self.reader.place_ids.values()))
        if int(there.sum()) != len(places):
            raise RuntimeError(f"{len(places)} places of pictures became {there.sum()} tokens")
        ids[there] = places
        return [int(index) for index in ids]

    @staticmethod
    def _taken(shown: list[Shown], placeholder: str, kind: MediaKind) -> Shown:
        """The next one of a kind, taken away."""
        for number, one in enumerate(shown):
            if one.kind == kind:
                return shown.pop(number)
        raise EncodeError(f"a text holds {placeholder!r}, which stands for a picture or film")

    def _opening(self, text: str) -> list[int]:
        """The begin token, where a family's processor puts it and its template does not."""
        return self.tokenizer.opening(text) if self.reader else []

    def _after(self, opened: str, closed: str, answer: str) -> str:
        """What the template adds to an opened turn once it is answered.

        LLaVA-OneVision's writes other blanks before an answer than where it asks for one; ours are the latter.
        """
        if not closed.startswith(opened) and self.reader:
            head, found, tail = closed.rpartition(answer)
            if found and head.split() == opened.split():
                return answer + tail
        self._must_extend(closed, opened)
        return closed[len(opened) :]

    def _folded(self, messages: Sequence[Message | None]) -> Sequence[Message | None]:
        """The messages for a template without a place for a system text: it begins the first user turn instead."""
        system, first, *rest = [*messages, None, None] if len(messages) < 2 else messages
        if system is None or system.role != "system" or self._keeps_system:
            return messages
        if first is None or first.role != "user":
            raise EncodeError("the model's chat template has no system role, and no user turn follows the system text")
        return [Message("user", (system.text, *first.parts)), *rest]

    @property
    def folds_system(self) -> bool:
        """Whether a system text begins the first user turn, as the model's chat template has no place for it."""
        return self.template is TemplateKind.chat and not self._keeps_system

    @cached_property
    def _keeps_system(self) -> bool:
        """Whether the chat template writes a system text before the first user turn, however many turns follow.

        Gemma's refuses it; Mistral's moves it to the last message, and drops it where that is an answer.
        """
        turns = [("system", "S1S2"), ("user", "U1U2"), ("assistant", "A1A2"), ("user", "U3U4")]
        plain = [{"role": role, "content": text} for role, text in turns]
        try:
            texts = [self.tokenizer.chat(plain[:count], open_turn=count != 3) for count in (2, 3, 4)]
        except TemplateError:
            return False
        return all(-1 < text.find("S1S2") < text.find("U1U2") for text in texts)

    def _rendered(self, plain: list[dict[str, Any]], *, open_turn: bool) -> str:
        try:
            return self.tokenizer.chat(plain, open_turn=open_turn)
        except TemplateError as error:  # turns that do not alternate, a role that it does not know
            raise EncodeError(f"the model's chat template refuses it: {error}") from None

    def _answer(self, text: str) -> Iterator[Piece]:
        """An assistant's turn: words and end token are trained, what the template puts after them is not."""
        ids = self.tokenizer.encode(text, special=True)
        if self.tokenizer.end_id not in ids:  # a template that leaves the end to the caller
            if self.reader:  # LLaVA's writes a blank after an answer, which its models were not trained to say
                ids = self.tokenizer.encode(text.rstrip(), special=True)
            yield self._ended(text, ids)
            return
        end = ids.index(self.tokenizer.end_id) + 1
        yield Piece(text, ids[:end], trained=True)
        if ids[end:]:
            yield Piece("", ids[end:], trained=False)

    def _ended(self, text: str, ids: list[int]) -> Piece:
        """An assistant's words and the end token, which the template leaves to us."""
        end = self.tokenizer.end_id
        return Piece(text + (self.tokenizer.special(end) or ""), [*ids, end], trained=True)

    @staticmethod
    def _must_extend(longer: str, shorter: str) -> None:
        if not longer.startswith(shorter):
            raise UserError(
                "the model's chat template changes earlier turns when a later one is added, so its prompts in training "
                "would not be those at inference; give model.template=alpaca or a model with another template"
            )


def _in_parts(message: Message) -> list[dict[str, str]]:
    """A message with pictures as a chat template of parts takes it: they and the texts, in order."""
    parts: list[dict[str, str]] = []
    for part in message.parts:
        if not isinstance(part, str):
            parts.append({"type": part.kind})
        elif part and parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += "\n\n" + part  # as `Message.text` joins them
        elif part:
            parts.append({"type": "text", "text": part})
    return parts
