"""A finished run as an object that answers: what `fieldtune predict` and other programs use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from fieldtune import datasets, tasks
from fieldtune.config import Accelerator, Config, HardwareConfig
from fieldtune.data.broken_media import broken_of
from fieldtune.data.encode import EncodeError
from fieldtune.data.media import CONTENTS, Shown
from fieldtune.errors import UserError
from fieldtune.loading import load
from fieldtune.models.films import Moments
from fieldtune.models.generate import Answer, Sampling, generate
from fieldtune.models.keeping import keep_media
from fieldtune.models.kept_films import chosen_frames
from fieldtune.models.kept_media import KeptMedia
from fieldtune.models.label_scores import label_logs
from fieldtune.models.loss import LanguageModelLoss
from fieldtune.models.run_model import RunModel
from fieldtune.models.tokenizer import Tokenizer
from fieldtune.records import SPLITS, Message, RecordError, read_examples
from fieldtune.runs import Run, find_run


class PromptTooLong(UserError):
    """A prompt leaves no room for an answer."""


class Predictor:
    """The tuned model of a run, or with `system="base"` the model it started from.

    run: a run folder, or `latest` for the newest finished one in `output_dir`. Raises `UserError` if it is not there.
    """

    def __init__(
        self, run: str | Path, *, output_dir: str | Path = "outputs", device: str = "cpu", system: str = "tuned"
    ) -> None:
        found = find_run(Path(output_dir), str(run))
        self._settle(load(found.config()), found, device, system)

    @classmethod
    def of_base(cls, config: Config, *, device: str = "cpu") -> Self:
        """The base model of a configuration, where no run has been trained."""
        made = cls.__new__(cls)
        made._settle(config, None, device, "base")
        return made

    def _settle(self, config: Config, run: Run | None, device: str, system: str) -> None:
        self.config = replace(config, hardware=HardwareConfig(accelerator=Accelerator[device]))
        self.task = tasks.get(self.config.data.task)
        self._system = system
        self._run = run
        self._models = RunModel(run, self.config)
        self._kept: KeptMedia | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        return self._models.tokenizer

    @contextmanager
    def model(self) -> Iterator[Any]:
        """The network itself, in evaluation mode. Films are read through the cache, as in training."""
        with self._models.system(self._system) as model:
            if self._kept is None:  # it is the same model every time
                self._kept = keep_media(self.config, model, self._models.encoder.reader)
            yield model

    def encode(self, prompt: Sequence[Message]) -> list[int]:
        """Ids of a prompt; `UserError` if it holds a special token's text, `PromptTooLong` if it fills the context."""
        try:
            ids = self._models.encoder.prompt(prompt)
        except EncodeError as error:
            raise UserError(f"a prompt cannot be encoded: {error}") from None
        if len(ids) >= self.config.model.context_length:
            raise PromptTooLong(
                f"a prompt has {len(ids):,} tokens; the model's context is {self.config.model.context_length:,}, "
                "answer included"
            )
        return ids

    def sampling(self) -> Sampling:
        """As the run's evaluation does it."""
        settings = self.config.evaluation
        return Sampling(settings.max_new_tokens, settings.temperature, settings.top_k, self.config.seed)

    def answer(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Answer]:
        """An answer to each prompt, `evaluation.batch_size` at a time; by default as the run's evaluation does it.

        schema: a JSON schema that every answer is held to.
        """
        sampling, size = sampling or self.sampling(), self.config.evaluation.batch_size
        ids = [self.encode(prompt) for prompt in prompts]
        with self.model() as model:
            return [
                answer
                for first in range(0, len(ids), size)
                for answer in generate(model, self.tokenizer, ids[first : first + size], sampling, schema=schema)
            ]

    def predict(self, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """An answer to each request in the task's own form: a swing for golf, messages or an instruction else."""
        return self.answer(self._prompts(requests))

    def _prompts(self, requests: Sequence[Mapping[str, Any]]) -> list[tuple[Message, ...]]:
        prompts = []
        for number, request in enumerate(requests, 1):
            try:
                prompts.append(self.task.prompt(request, self.config.data))
            except (RecordError, UserError) as error:
                raise UserError(f"request {number}: {error}") from None
        return prompts

    def problems(self, requests: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        """What is wrong with the pictures and films of requests, by the request's number from 0; those that can be
        read are not named."""
        found: dict[int, str] = {}
        with self.model():  # what is read is kept
            for number, prompt in enumerate(self._prompts(requests)):
                try:
                    broken = list(broken_of(self._shown(prompt), lambda shown: shown.reader.check(shown)).values())
                except EncodeError as error:
                    broken = [str(error)]
                if broken:
                    found[number] = broken[0]
        return found

    def chosen(self, requests: Sequence[Mapping[str, Any]]) -> list[Moments | None]:
        """Of the first film of each request the frames that the model looks at most closely; None where it chooses
        none. `MediaError` for a film that cannot be read."""
        with self.model() as model:
            shown = [next(iter(self._shown(prompt)), None) for prompt in self._prompts(requests)]
            return [None if one is None else chosen_frames(model, self._kept, one) for one in shown]

    def _shown(self, prompt: Sequence[Message]) -> list[Shown]:
        return [one for _, one in CONTENTS.in_order(np.array(self._models.encoder.prompt(prompt)))]

    def labels(self, requests: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
        """Of requests that ask for one of the task's labels: the most probable one and its probability among them.

        Empty for a task without labels. They are those of the run's data set; `UserError` if that is gone. Without a
        run they are those of the configuration's data set, and none if that is not prepared.
        """
        dataset = datasets.of_run(self.config, self._run) if self._run else datasets.find(self.config)
        if dataset is None:
            return []
        examples = (row for split in SPLITS for row in read_examples(dataset.split(split)))
        known = self.task.labels(self.config.data, examples)
        if known is None:
            return []
        prompts = self._prompts(requests)
        with self.model() as model:
            logs = label_logs(
                LanguageModelLoss(model), self._models.encoder, prompts, known.names, self.config.trainer.packing
            )
        shares = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
        return [(known.names[int(row.argmax())], float(row.max())) for row in shares]
