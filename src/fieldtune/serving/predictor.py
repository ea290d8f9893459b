"""A finished run as an object that answers: what `fieldtune predict` and other programs use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldtune import tasks
from fieldtune.config import Accelerator, HardwareConfig
from fieldtune.data.encode import EncodeError
from fieldtune.errors import UserError
from fieldtune.loading import load
from fieldtune.models.generate import Answer, Sampling, generate
from fieldtune.models.run_model import RunModel
from fieldtune.records import Message, RecordError
from fieldtune.runs import find_run


class Predictor:
    """The tuned model of a run, or with `system="base"` the model it started from.

    run: a run folder, or `latest` for the newest finished one in `output_dir`. Raises `UserError` if it is not there.
    """

    def __init__(
        self, run: str | Path, *, output_dir: str | Path = "outputs", device: str = "cpu", system: str = "tuned"
    ) -> None:
        found = find_run(Path(output_dir), str(run))
        self.config = replace(load(found.config()), hardware=HardwareConfig(accelerator=Accelerator[device]))
        self.task = tasks.get(self.config.data.task)
        self._system = system
        self._models = RunModel(found, self.config)

    def answer(self, prompts: Sequence[Sequence[Message]], sampling: Sampling | None = None) -> list[Answer]:
        """An answer to each prompt, `evaluation.batch_size` at a time; by default as the run's evaluation does it."""
        settings = self.config.evaluation
        sampling = sampling or Sampling(settings.max_new_tokens, settings.temperature, settings.top_k, self.config.seed)
        try:
            ids = [self._models.encoder.prompt(prompt) for prompt in prompts]
        except EncodeError as error:
            raise UserError(f"a prompt cannot be encoded: {error}") from None
        longest = max((len(prompt) for prompt in ids), default=0)
        if longest >= self.config.model.context_length:
            raise UserError(
                f"a prompt has {longest:,} tokens; the model's context is {self.config.model.context_length:,}, "
                "answer included"
            )
        with self._models.system(self._system) as model:
            return [
                answer
                for first in range(0, len(ids), settings.batch_size)
                for answer in generate(
                    model, self._models.tokenizer, ids[first : first + settings.batch_size], sampling
                )
            ]

    def predict(self, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """An answer to each request in the task's own form: a swing for golf, messages or an instruction else."""
        prompts = []
        for number, request in enumerate(requests, 1):
            try:
                prompts.append(self.task.prompt(request, self.config.data))
            except (RecordError, UserError) as error:
                raise UserError(f"request {number}: {error}") from None
        return self.answer(prompts)
