"""The task of `data=golf`: generated swings and users' feedback, exported in the Alpaca form, scored by fact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.records import Example, Message, Rejected, read_examples
from fieldtune.sources.json_text import write_list
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
        return [
            write_list(folder / f"golf_feedback_{split}.json", map(_alpaca, read_examples(path)))
            for split, path in splits.items()
        ]

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


def _alpaca(example: Example) -> dict[str, str]:
    """A prompt of several turns (a mixture's) is one instruction."""
    parts = example.prompt[0].texts if len(example.prompt) == 1 else (example.prompt_text,)
    return {"instruction": parts[0], "input": "\n\n".join(parts[1:]), "output": example.answer}


TASK = GolfTask()
