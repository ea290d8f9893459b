"""The task of `data=golf`: generated swings and users' feedback, exported in the Alpaca form, scored by fact."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.records import Example, Message, Rejected, read_examples
from fieldtune.tasks.base import Metric, Score, request_messages
from fieldtune.tasks.golf.config import Data
from fieldtune.tasks.golf.feedback import read_feedback
from fieldtune.tasks.golf.generate import generate
from fieldtune.tasks.golf.knowledge import knowledge_at
from fieldtune.tasks.golf.scoring import METRICS, score_answer
from fieldtune.tasks.golf.swing import Swing, swing_prompt


class GolfTask:
    """See the module."""

    name = "golf"
    breakdowns: Sequence[str] = ("area", "band")
    metrics: Sequence[Metric] = METRICS

    def examples(self, data: Data, seed: int) -> Iterator[Example | Rejected]:
        """`data.count` generated rows, then the users' feedback, refused lines as `Rejected`.

        UserError names every broken file of the knowledge base, or a feedback file that cannot be read.
        """
        yield from generate(data, knowledge_at(data.knowledge), seed)
        if data.feedback is not None:
            yield from read_feedback(Path(data.feedback), data)

    def export(self, folder: Path, splits: Mapping[str, Path]) -> Sequence[Path]:
        """golf_feedback_{train,val,test}.json: lists of {instruction, input, output}, the Alpaca form."""
        return [_export(path, folder / f"golf_feedback_{split}.json") for split, path in splits.items()]

    def score(self, example: Example, answer: str) -> Score:
        """See `score_answer`."""
        return score_answer(example, answer)

    def answer_schema(self, example: Example) -> None:
        """Answers are text."""

    def baseline(self, training: Iterable[Example]) -> None:
        """No answer is right often enough to be worth comparing with."""

    def labels(self, data: Data, examples: Iterable[Example]) -> None:
        """Answers are free."""

    def prompt(self, request: Mapping[str, Any], data: Data) -> tuple[Message, ...]:
        """The prompt of a swing {area, score, target, scores, swing_type}, or of a request in general form."""
        if any(key in request for key in ("messages", "instruction", "prompt")):
            return request_messages(request)
        return (Message("user", swing_prompt(Swing.from_mapping(request), data.form)),)

    def result_name(self) -> str:
        return "golf-feedback"


def _export(source: Path, path: Path) -> Path:
    """One split, written row by row: it may be larger than memory."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, example in enumerate(read_examples(source)):
            text = json.dumps(_alpaca(example), ensure_ascii=False, indent=2).replace("\n", "\n  ")
            file.write(("," if number else "") + "\n  " + text)
        file.write("\n]\n")
    part.replace(path)
    return path


def _alpaca(example: Example) -> dict[str, str]:
    """A prompt of several turns (a mixture's) is one instruction."""
    parts = example.prompt[0].texts if len(example.prompt) == 1 else (example.prompt_text,)
    return {"instruction": parts[0], "input": "\n\n".join(parts[1:]), "output": example.answer}


TASK = GolfTask()
