"""What a run does: its optimizer steps, tokens and largest window; of the prepared rows, or of full-length ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fieldtune import datasets, ranks
from fieldtune.config import Config
from fieldtune.data.batches import MicroBatch, Window, window_with_media
from fieldtune.data.encode import Encoded, Encoder
from fieldtune.data.load import encode_examples, media_of_encoded
from fieldtune.data.media import Shown
from fieldtune.data.schedule import Schedule, Windows
from fieldtune.errors import UserError
from fieldtune.models.film_outline import blank_films
from fieldtune.models.films import FilmReader
from fieldtune.models.kept_looks import blank_looks, keeps_looks
from fieldtune.models.looks import are_looks
from fieldtune.models.real_inputs import pixels
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.models.vision import load_reader
from fieldtune.models.vision_reader import Reader
from fieldtune.models.weights import Source
from fieldtune.records import read_examples

WINDOWS_TRIED = 64  # laid out to see how many tokens packing leaves
HEAVIEST = 3  # windows with the most tokens, laid out to find the one that needs the most memory


@dataclass(frozen=True, slots=True)
class Work:
    """Of the whole run. tokens: of the rows as often as they are seen. computed: what passes through the model."""

    steps: int
    rows: int
    tokens: int
    computed: int
    supervised: int
    length: float  # mean tokens of a row
    val_tokens: int  # of one evaluation
    evaluations: int
    prompt: int  # tokens of the longest prompt
    heaviest: Window  # with its pictures
    numbers: int  # of all pixels that pass through a vision tower
    looked_before: Shown | None  # the largest, where frozen towers look at each once, before the first step
    prepared: bool  # False: the rows are made up, all of model.context_length tokens


def work_of_config(config: Config, source: Source, vocabulary: int) -> Work:
    """Rows of the prepared data set; without one, a step's rows of full length, half of their tokens supervised."""
    dataset = datasets.find(config)
    length, trainer = config.model.context_length, config.trainer
    if dataset is None:
        size = trainer.micro_batch_size * trainer.accumulation
        rows, val, pad = full_rows(size, length, vocabulary), [], 0
    else:
        tokenizer = load_tokenizer(config.model.tokenizer, source.folder)
        reader = load_reader(source.folder, tokenizer, config.model.frames)
        if isinstance(reader, FilmReader):  # how much there is of a film is known without looking at it
            reader.kept = blank_films(config, reader.shape)
        elif isinstance(reader, Reader) and keeps_looks(config):
            reader.kept = blank_looks(reader, config.hardware.precision)
        encoder, prompt = Encoder(tokenizer, config.model.template, reader), config.data.train_on_prompt
        rows, val = (
            encode_examples(read_examples(dataset.split(split)), encoder, length, train_on_prompt=prompt).encoded
            for split in ("train", "val")
        )
        pad = tokenizer.pad_id
    several = config.hardware.strategy in ranks.PROCESS_A_DEVICE
    replicas = ranks.devices(config.hardware) * config.hardware.nodes
    schedule = Schedule.of(config, len(rows), replicas)
    windows = Windows(rows, schedule, trainer.packing, pad, world_size=replicas if several else 1)
    return work_of(config, windows, val[: trainer.eval_rows], prepared=dataset is not None)


def work_of(
    config: Config, windows: Windows, val: Sequence[Encoded], *, prepared: bool = True, tried: int = WINDOWS_TRIED
) -> Work:
    """Of windows as training gets them. tried: how many are laid out to see what packing leaves."""
    if not windows.rows:
        raise UserError(
            f"no train row can be used; model.context_length={config.model.context_length} may be too small"
        )
    schedule, lengths = windows.schedule, np.array([len(row.ids) for row in windows.rows])
    steps, a_step = schedule.total_steps, schedule.step_rows
    epochs, rest = divmod(steps, schedule.steps_per_epoch)
    seen = epochs * schedule.rows + min(rest * a_step, schedule.rows)
    some = sorted(set(np.linspace(0, steps - 1, min(tried, steps)).astype(int).tolist()))
    laid_out = {step: windows.build(step) for step in {*some, *_largest(schedule, lengths)}}
    share = sum(laid_out[step]["computed"] for step in some) / sum(laid_out[step]["tokens"] for step in some)
    tokens = round(seen * float(lengths.mean()))
    supervised = sum(row.supervised for row in windows.rows) / len(windows.rows)
    heaviest = window_with_media(max(laid_out.values(), key=_weight))
    looked = _looked_before(windows, heaviest)
    places = sum(_places(laid_out[step]) for step in some) / sum(laid_out[step]["tokens"] for step in some)
    passed = round(tokens * places * picture_numbers(heaviest) / max(1, _places(heaviest)))
    evaluations = 1 + -(-steps // config.trainer.eval_every) if val else 0
    return Work(
        steps=steps,
        rows=schedule.rows,
        tokens=tokens,
        computed=round(tokens * share),
        supervised=round(seen * supervised),
        length=float(lengths.mean()),
        val_tokens=sum(len(row.ids) for row in val),
        evaluations=evaluations,
        prompt=max(_prompt(row) for row in windows.rows),
        heaviest=heaviest,
        numbers=sum(map(_values, looked)) if looked else passed,
        looked_before=max(looked, key=_values, default=None),
        prepared=prepared,
    )


def _largest(schedule: Schedule, lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    """Steps of the first epochs whose rows have the most tokens."""
    steps = range(min(schedule.total_steps, 3 * schedule.steps_per_epoch, 3000))
    return sorted(steps, key=lambda step: -int(lengths[schedule.window(step)].sum()))[:HEAVIEST]


def _weight(window: Window) -> int:
    """Tokens whose activations are held at a time."""
    trunk = window["trunk"]["ids"].numel() if window["trunk"] is not None else 0
    return trunk + max((batch["ids"].numel() for batch in window["micro_batches"]), default=0)


def _passes(window: Window) -> list[MicroBatch]:
    return [*([window["trunk"]] if window["trunk"] is not None else []), *window["micro_batches"]]


def _places(window: Window) -> int:
    """Places of pictures that are computed."""
    return sum(int((batch["ids"] < 0).sum()) for batch in _passes(window))


def _looked_before(windows: Windows, heaviest: Window) -> list[Shown]:
    """All pictures and films, where steps get what frozen towers saw of them, and no pixels."""
    inputs = [batch["media"]["inputs"] for batch in _passes(heaviest) if batch["media"] is not None]
    if not any("images" in one or are_looks(one) for one in inputs):
        return []
    return media_of_encoded(windows.rows)


def _values(shown: Shown) -> int:
    return shown.reader.values(shown)


def picture_numbers(window: Window) -> int:
    """Numbers of all pixels of a window with its pictures."""
    return sum(one.numel() for one in pixels(_passes(window)) if one.is_floating_point())


def picture_bytes(window: Window) -> int:
    """Bytes of what the model takes of a window's pictures."""
    return sum(one.nbytes for one in pixels(_passes(window)))


def _prompt(row: Encoded) -> int:
    """Tokens before the first trained one."""
    return int(np.argmax(row.trained)) if row.trained.any() else len(row.ids)


def full_rows(count: int, length: int, vocabulary: int) -> list[Encoded]:
    """Rows without a common beginning: the most that rows of that length can take."""
    random = np.random.default_rng(0)
    trained = np.arange(length) >= length // 2
    return [Encoded(random.integers(0, vocabulary, length).astype(np.int32), trained) for _ in range(count)]
