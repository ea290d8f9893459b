"""The task of `data=judo`: techniques in labeled frames, their errors where these are described."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.progress import Progress
from fieldtune.records import Example, Media, Message, RecordError, Rejected
from fieldtune.tasks.base import Baseline, Labels, Metric, Score, request_messages
from fieldtune.tasks.judo.config import Data
from fieldtune.tasks.judo.frames import read_frames
from fieldtune.tasks.judo.rows import ERRORS_SCHEMA, errors_prompt, rows_of, technique_prompt
from fieldtune.tasks.judo.scoring import METRICS, majority, score_answer
from fieldtune.tasks.judo.vocabulary import vocabulary

log = logging.getLogger("fieldtune")

FEWEST_FRAMES = 10  # of a technique; fewer are learned badly and measured worse
NAMED = 5  # techniques that a warning names


class JudoTask:
    """See the module."""

    name = "judo"
    breakdowns: Sequence[str] = ("technique", "category", "kind")
    metrics: Sequence[Metric] = METRICS

    def examples(self, data: Data, seed: int) -> Iterator[Example | Rejected]:
        """The rows of every frame in the order of the names; what cannot be used as `Rejected`. With `data.count` the
        frames are rendered before.

        Warns of techniques with few frames, and of frames without performer or video: two frames of one clip may then
        come into training and test.
        """
        known, frames, alone = vocabulary(data.techniques), Counter[str](), 0
        folder = Path(str(data.frames)) if data.count is None else _rendered(data, data.count, seed)
        for item in read_frames(folder, known):
            if isinstance(item, Rejected):
                yield item
                continue
            try:
                rows = list(rows_of(item, known))
            except RecordError as error:
                yield Rejected(*item.place, str(error), item.name)
                continue
            frames[item.technique] += 1
            alone += item.group is None
            yield from rows
        _warn(frames, alone)

    def export(self, folder: Path, splits: Mapping[str, Path]) -> Sequence[Path]:
        """Nothing beside our own files."""
        return ()

    def score(self, example: Example, answer: str) -> Score:
        """See `score_answer`."""
        return score_answer(example, answer)

    def answer_schema(self, example: Example) -> Mapping[str, Any] | None:
        """That of errors; a technique is text."""
        return ERRORS_SCHEMA if example.meta.get("kind") == "errors" else None

    def baseline(self, training: Iterable[Example]) -> Baseline | None:
        """See `majority`."""
        return majority(training)

    def labels(self, data: Data, examples: Iterable[Example]) -> Labels | None:
        """The techniques of the data set, for the rows that ask for one."""
        names = sorted({name for example in examples if (name := _technique(example)) is not None})
        return Labels(names, _technique) if len(names) > 1 else None

    def prompt(self, request: Mapping[str, Any], data: Data) -> tuple[Message, ...]:
        """The prompt of {image} or {image, technique}, that for what is wrong; or of a request in general form."""
        image, technique = request.get("image"), request.get("technique")
        if image is None:
            return request_messages(request)
        if not isinstance(image, str) or not image:
            raise RecordError("'image' must be the path of a picture")
        picture = Media("image", image)
        if technique is None:
            return technique_prompt(picture)
        name = vocabulary(data.techniques).find(str(technique))
        if name is None:
            near = vocabulary(data.techniques).nearest(str(technique))
            raise RecordError(f"{technique!r} is not a technique that is known; the nearest is {near!r}")
        return errors_prompt(picture, name)

    def result_name(self) -> str:
        return "judo-coach"


def _rendered(data: Data, count: int, seed: int) -> Path:
    """The folder of rendered stills."""
    from fieldtune.sources.figures.throws import make_stills  # pillow is only needed here

    progress = Progress("rendering", count)
    folder = make_stills(Path(str(data.stills)), count, seed, lambda _: progress.advance())
    log.info("rendered stills: %s", folder)
    return folder


def _technique(example: Example) -> str | None:
    """The right label of a row that asks for a technique."""
    return str(example.meta["technique"]) if example.meta.get("kind") == "technique" else None


def _warn(frames: Counter[str], alone: int) -> None:
    few = sorted((count, name) for name, count in frames.items() if count < FEWEST_FRAMES)
    if few:
        named = ", ".join(f"{name} {count}" for count, name in few[:NAMED])
        more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
        log.warning("techniques with fewer than %d frames: %s%s", FEWEST_FRAMES, named, more)
    if alone:
        log.warning(
            "%d of %d frames have no performer or video (see docs/judo.md): frames of one clip may lie in training "
            "and test, and the figures flatter",
            alone,
            frames.total(),
        )


TASK = JudoTask()
