"""The task of `data=fitness`: coaching, plan changes and weekly plans, scored by schema, rules, safety and facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.records import Example, Message, RecordError, Rejected, read_examples, write_jsonl
from fieldtune.tasks.base import Baseline, Metric, Score, request_messages
from fieldtune.tasks.fitness import prompt
from fieldtune.tasks.fitness.config import Data
from fieldtune.tasks.fitness.conversations import read_conversations
from fieldtune.tasks.fitness.generate import SOURCE, generate
from fieldtune.tasks.fitness.history import read_histories
from fieldtune.tasks.fitness.majority import majority
from fieldtune.tasks.fitness.schema import Context, answer_schemas
from fieldtune.tasks.fitness.scoring import METRICS, score_answer
from fieldtune.tasks.fitness.validation import parse_part

# The three files of the original format, by kind of example.
FILES = {
    "coaching": "coaching_conversations.jsonl",
    "plan_modification": "plan_modifications.jsonl",
    "weekly_plan": "weekly_plans.jsonl",
}
_HEADINGS = {
    "feedback": prompt.FEEDBACK,
    "goals": prompt.GOALS,
    "constraints": prompt.CONSTRAINTS,
    "question": prompt.QUESTION,
}


class FitnessTask:
    """See the module."""

    name = SOURCE
    breakdowns: Sequence[str] = ("kind", "reason", "status", "hard")
    metrics: Sequence[Metric] = METRICS

    def examples(self, data: Data, seed: int) -> Iterator[Example | Rejected]:
        """`data.count` rows of real and simulated athletes, then the conversations, refused lines as `Rejected`.

        UserError for a log or a file that cannot be read at all.
        """
        histories = []
        for item in read_histories(Path(data.logs)) if data.logs is not None else ():
            if isinstance(item, Rejected):
                yield item
            else:
                histories.append(item)
        yield from generate(data, seed, histories)
        if data.conversations is not None:
            yield from read_conversations(Path(data.conversations))

    def export(self, folder: Path, splits: Mapping[str, Path]) -> Sequence[Path]:
        """The training rows by kind, as lines of {messages} alone."""
        paths = []
        for kind, name in FILES.items():
            path, part = folder / name, folder / f".{name}.part"
            rows = (row for row in read_examples(splits["train"]) if row.meta.get("kind") == kind)
            write_jsonl(part, ({"messages": [turn.to_json() for turn in row.messages]} for row in rows))
            part.replace(path)
            paths.append(path)
        return paths

    def score(self, example: Example, answer: str) -> Score:
        """See `score_answer`."""
        return score_answer(example, answer)

    def answer_schema(self, example: Example) -> Mapping[str, Any] | None:
        """That of a plan change or a weekly plan; coaching is text."""
        return answer_schemas().get(str(example.meta.get("kind")))

    def baseline(self, training: Iterable[Example]) -> Baseline | None:
        """See `majority`."""
        return majority(training)

    def labels(self, data: Data, examples: Iterable[Example]) -> None:
        """Answers are free."""

    def prompt(self, request: Mapping[str, Any], data: Data) -> tuple[Message, ...]:
        """The prompt of {context, feedback | goals (and constraints) | question}, or of a request in general form."""
        if "context" not in request:
            return request_messages(request)
        told, problems = parse_part(Context, request["context"])
        if told is None:
            raise RecordError(f"context.{problems[0]}")
        blocks = [(heading, str(request[key])) for key, heading in _HEADINGS.items() if request.get(key)]
        if not blocks:
            raise RecordError("beside 'context' give 'feedback', 'goals' (and 'constraints') or 'question'")
        return prompt.prompt(told, blocks)

    def result_name(self) -> str:
        return "fitness-coach"


TASK = FitnessTask()
