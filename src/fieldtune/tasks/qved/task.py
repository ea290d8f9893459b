"""The task of `data=qved`: films of exercises and a coach's words on them, exported in the MobileGPT form."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.progress import Progress
from fieldtune.records import Example, Media, Message, RecordError, Rejected, file_sha256, read_examples
from fieldtune.sources.json_text import write_list
from fieldtune.sources.mobilegpt import row_of
from fieldtune.tasks.base import LIKENESS, Baseline, Metric, Score, request_messages
from fieldtune.tasks.qved.config import Data
from fieldtune.tasks.qved.labels import SOURCE, prompt_of, read_labels
from fieldtune.tasks.qved.scoring import METRICS, majority, score_answer

log = logging.getLogger("fieldtune")


class QvedTask:
    """See the module."""

    name = SOURCE
    breakdowns: Sequence[str] = ("exercise", "label")
    metrics: Sequence[Metric] = (*METRICS, *LIKENESS)

    def examples(self, data: Data, seed: int) -> Iterator[Example | Rejected]:
        """The entries of `data.labels`, or `data.count` films that are rendered before; see `read_labels`."""
        if data.count is None:
            videos = Path(data.videos) if data.videos is not None else None
            yield from read_labels(Path(str(data.labels)), videos, data, seed)
        else:
            folder = _rendered(data, data.count, seed)
            yield from read_labels(folder / "fine_grained_labels.json", folder, data, seed)

    def export(self, folder: Path, splits: Mapping[str, Path]) -> Sequence[Path]:
        """qved_{train,val,test}.json: lists of {id, video, group, conversations}, the MobileGPT form."""
        return [write_list(folder / f"qved_{split}.json", _exported(path)) for split, path in splits.items()]

    def score(self, example: Example, answer: str) -> Score:
        """See `score_answer`."""
        return score_answer(example, answer)

    def answer_schema(self, example: Example) -> None:
        """Answers are text."""

    def baseline(self, training: Iterable[Example]) -> Baseline | None:
        """See `majority`."""
        return majority(training)

    def labels(self, data: Data, examples: Iterable[Example]) -> None:
        """Answers are free."""

    def prompt(self, request: Mapping[str, Any], data: Data) -> tuple[Message, ...]:
        """The prompt of {video: FILE} (and `exercise`, if data.user_prompt has it), or of a request in general form."""
        video = request.get("video")
        if not isinstance(video, str):
            return request_messages(request)
        exercise = request.get("exercise", "")
        if "{exercise}" in data.user_prompt and not (isinstance(exercise, str) and exercise.strip()):
            raise RecordError("data.user_prompt of this run names the exercise; give 'exercise' beside 'video'")
        path = Path(video)
        if not path.is_file():
            raise RecordError(f"the video {video} is not there; give the path of a file")
        return prompt_of(Media("video", str(path.resolve()), file_sha256(path)), str(exercise), data)

    def result_name(self) -> str:
        return "exercise-coach"


def _rendered(data: Data, count: int, seed: int) -> Path:
    """The folder of rendered films."""
    from fieldtune.sources.figures.films import make_films  # pillow and av are only needed here

    progress = Progress("rendering", count)
    folder = make_films(Path(str(data.films)), count, seed, data.exercises, lambda _: progress.advance())
    log.info("rendered films: %s", folder)
    return folder


def _exported(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a split; a mixture's rows that the form cannot say are left out and named."""
    for example in read_examples(path):
        try:
            yield row_of(example)
        except RecordError as error:
            log.warning("%s is not exported: %s", example.id, error)


TASK = QvedTask()
