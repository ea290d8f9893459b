"""The gate of an exported chat template: rendered as the other program renders it, it gives the token ids of training.

Ollama's TEMPLATE is rendered by Go's text/template itself (`render.go`), from the Modelfile as it is published.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fieldtune.data.encode import EncodeError, Encoder
from fieldtune.errors import UserError
from fieldtune.export.conversations import CONVERSATIONS, Conversation
from fieldtune.records import Example, Message

Ids = list[int]
MISSING_GO = (
    "to=ollama compares the template's token ids with those of training, which needs Go; "
    "apt-get install golang-go (or https://go.dev/dl), or give skip=template, and the export says that it was not done"
)


def has_go() -> bool:
    return shutil.which("go") is not None


def conversations(examples: Sequence[Example]) -> list[Conversation]:
    """Those of the suite, and the prompts of some held-out rows."""
    return [*CONVERSATIONS, *(_row(example) for example in examples)]


def _row(example: Example) -> Conversation:
    texts = [message.text for message in example.prompt]
    return Conversation(
        f"row {example.id}", example.prompt, edges=any(text != text.strip() or not text for text in texts)
    )


def rendered_by_go(template: str, said: Sequence[Conversation]) -> list[str]:
    """Prompts as Ollama writes them; `UserError` with Go's own words for a template that it refuses."""
    request = {"template": template, "conversations": [_plain(one.messages) for one in said]}
    program = Path(__file__).with_name("render.go")
    done = subprocess.run(
        ["go", "run", str(program)], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    if done.returncode:
        reasons = (line for line in done.stderr.splitlines() if line and not line.startswith(("#", "exit status")))
        raise UserError(f"Go cannot render the template: {next(reasons, 'it gives no reason')}")
    texts: list[str] = json.loads(done.stdout)
    return texts


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def compare(
    what: str,
    encoder: Encoder,
    said: Sequence[Conversation],
    texts: Sequence[str],
    tokenize: Callable[[str], Ids],
) -> dict[str, Any]:
    """Compare a form's token ids with training's, a conversation a text; `UserError` for the first that differs.

    Texts that begin or end with blanks are told apart and do not fail: some templates take blanks away, and training
    tokenizes each turn by itself. A conversation that training refuses is left out.
    """
    equal, left_out, edges = 0, [], []
    for one, text in zip(said, texts, strict=True):
        try:
            wanted = encoder.prompt(one.messages)
        except EncodeError:
            left_out.append(one.name)
            continue
        found = tokenize(text)
        if found == wanted:
            equal += 1
        elif one.edges:
            edges.append(one.name)
        else:
            raise UserError(
                f"{what} gives other token ids than training for {one.name!r}, {_where(encoder, wanted, found)}; "
                "nothing is published"
            )
    return {"conversations": len(said), "equal": equal, "differ_in_blanks_at_the_ends": edges, "left_out": left_out}


def _where(encoder: Encoder, wanted: Ids, found: Ids) -> str:
    place = next((n for n, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return f"{len(found):,} tokens and not {len(wanted):,}"
    texts = [_spelled(encoder, ids[place : place + 6]) for ids in (found, wanted)]
    return f"from token {place:,}: {texts[0]!r} and not {texts[1]!r}"


def _spelled(encoder: Encoder, ids: Ids) -> str:
    tokenizer = encoder.tokenizer
    return "|".join(tokenizer.special(index) or tokenizer.decode([index]) for index in ids)


def tokenizer_of(encoder: Encoder, begin: str) -> Callable[[str], Ids]:
    """The run's tokenizer on a whole prompt, after a begin token that the other program puts there."""
    return lambda text: encoder.tokenizer.encode(begin + text, special=True)


def jinja_texts(chat: Callable[..., str], said: Sequence[Conversation]) -> list[str]:
    """Prompts by a published tokenizer's own chat template; an empty text where it refuses one."""
    return [chat(_plain(one.messages), open_turn=True) for one in said]
