"""The task of `data=jsonl`: rows as they stand, scored by how near an answer comes to the reference.

With `data.classes` it is a classification: every answer is one of the labels.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.records import Example, Message, Rejected
from fieldtune.sources.tabular import read_rows
from fieldtune.tasks.base import Labels, Metric, Score, request_messages
from fieldtune.tasks.jsonl.config import Data


class JsonlTask:
    """See the module."""

    name = "jsonl"
    breakdowns: Sequence[str] = ("source",)
    metrics: Sequence[Metric] = (
        Metric("exact", "Exact match", "share", "higher", "The answer equals the reference but for case and spaces."),
        Metric("word_f1", "Word overlap (F1)", "share", "higher", "Harmonic mean of word precision and recall."),
    )

    def examples(self, data: Data, seed: int) -> Iterator[Example | Rejected]:
        """The rows of the file in its order; corrupt lines, and answers that are no label, as `Rejected`."""
        path = Path(data.path)
        for item in read_rows(path, path.stem):
            if isinstance(item, Example) and data.classes and item.answer not in data.classes:
                near = difflib.get_close_matches(item.answer, data.classes, n=1, cutoff=0)[0]
                reason = f"row {item.id}: the answer is not one of data.classes; the nearest is {near!r}"
                yield Rejected(str(path), 0, reason, item.answer[:500])
            else:
                yield item

    def export(self, folder: Path, splits: Mapping[str, Path]) -> Sequence[Path]:
        """Nothing beside our own files: the user has theirs."""
        return ()

    def score(self, example: Example, answer: str) -> Score:
        """Nearness to the reference answer, both figures in [0, 1]."""
        given, wanted = _words(answer), _words(example.answer)
        shared = sum((Counter(given) & Counter(wanted)).values())
        f1 = 2 * shared / (len(given) + len(wanted)) if given or wanted else 1.0
        return Score({"exact": float(given == wanted), "word_f1": f1})

    def answer_schema(self, example: Example) -> None:
        """Answers are text."""

    def baseline(self, training: Iterable[Example]) -> None:
        """No answer is right often enough to be worth comparing with."""

    def labels(self, data: Data, examples: Iterable[Example]) -> Labels | None:
        """Those of `data.classes`; a mixture's rows may have other answers."""
        if not data.classes:
            return None
        return Labels(data.classes, lambda example: example.answer if example.answer in data.classes else None)

    def prompt(self, request: Mapping[str, Any], data: Data) -> tuple[Message, ...]:
        """See `request_messages`."""
        return request_messages(request)

    def result_name(self) -> str:
        return "fine-tuned"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.casefold())


TASK = JsonlTask()
