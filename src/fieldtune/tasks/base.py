"""What a task is: where its examples come from, how an answer is scored, what it writes beside them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fieldtune.records import Example, Message, RecordError, Rejected, parse_turns


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that `Task.score` gives for each answer; its mean over the rows is reported."""

    name: str
    title: str
    unit: str  # share (0 to 1) | ratio
    better: str  # higher | lower | neither
    about: str  # one sentence: what it measures
    rare: bool = False  # left out of the report where no row has a value


# How like its reference an answer is. A task that names one of them in its metrics gets it from the evaluation.
ROUGE_L = Metric(
    "rouge_l", "ROUGE-L", "share", "higher", "F1 of the longest sequence of words that stands in both texts in order."
)
METEOR = Metric(
    "meteor", "METEOR", "share", "higher", "Words and word stems that are matched, less where their order differs."
)
SIMILARITY = Metric(
    "similarity", "Similarity", "ratio", "higher", "Cosine of the sentence embeddings (all-MiniLM-L6-v2) of both texts."
)
LIKENESS = (ROUGE_L, METEOR, SIMILARITY)


@dataclass(frozen=True, slots=True)
class Score:
    """values: a number per metric name, None where it does not apply. checks: what is wrong, in words."""

    values: Mapping[str, float | None]
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """A rule of thumb that a trained model should beat.

    about: what it always says. score: its values for an example, by metric name; none where it says nothing. answer:
    the words of a rule that always gives the same ones, for the figures of likeness.
    """

    title: str
    about: str
    score: Callable[[Example], Mapping[str, float | None]]
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """Questions whose answer is one of a few.

    names: the labels, each as an answer says it, no two alike. of: the right one for an example; None for a question of
    another kind.
    """

    names: Sequence[str]
    of: Callable[[Example], str | None]


class Task(Protocol):
    """Everything that training, evaluation and serving need to know of a field."""

    name: str
    breakdowns: Sequence[str]  # keys of Example.meta by which rows are counted and metrics broken down
    metrics: Sequence[Metric]

    def examples(self, data: Any, seed: int) -> Iterator[Example | Rejected]:
        """Examples and refused pieces, in an order that depends only on the arguments.

        Broken source material that cannot be left out raises UserError.
        """
        ...

    def export(self, folder: Path, splits: Mapping[str, Path]) -> Sequence[Path]:
        """Write the files that the task's users know beside train/val/test.jsonl; returns their paths."""
        ...

    def score(self, example: Example, answer: str) -> Score:
        """Score one answer to an example's prompt by what can be checked in it."""
        ...

    def answer_schema(self, example: Example) -> Mapping[str, Any] | None:
        """JSON Schema of the answer to an example; None where the answer is text."""
        ...

    def baseline(self, training: Iterable[Example]) -> Baseline | None:
        """What the training rows suggest without looking at a prompt; None where nothing does."""
        ...

    def labels(self, data: Any, examples: Iterable[Example]) -> Labels | None:
        """The labels among which some rows' answers are; None where answers are free.

        data: the data section. examples: the rows of all splits, read only as far as they are asked for.
        """
        ...

    def prompt(self, request: Mapping[str, Any], data: Any) -> tuple[Message, ...]:
        """The prompt of a request made outside a data set; RecordError or UserError says what is wrong with it.

        data: the data section of the run that answers.
        """
        ...

    def result_name(self) -> str:
        """Name that ends a result file, as in gpt2-124M-{golf-feedback}.pth."""
        ...


def request_messages(request: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages of a request in chat form ({messages}) or as {instruction, input?} or {prompt}, system? beside.

    RecordError if it is neither, or does not end with a user turn.
    """
    if "messages" in request:
        messages = parse_turns(request["messages"])
    else:
        texts = [request.get(key) for key in ("instruction", "prompt", "input")]
        parts = tuple(text for text in texts if isinstance(text, str) and text.strip())
        if not parts:
            raise RecordError("give 'messages', or 'instruction' (and 'input'), or 'prompt'")
        system = request.get("system")
        messages = ((Message("system", (system,)),) if isinstance(system, str) and system else ()) + (
            Message("user", parts),
        )
    if messages[-1].role != "user":
        raise RecordError("the last message must be of role 'user': it is what is answered")
    return messages
