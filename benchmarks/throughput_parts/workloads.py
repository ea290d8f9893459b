"""The workloads: which rows, which model, what is trained; and the rows of each optimizer step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from fieldtune import tasks
from fieldtune.composition import composed
from fieldtune.config import Config, Precision, TemplateKind
from fieldtune.data.encode import ALPACA_HEADER, Encoded, Encoder
from fieldtune.data.load import encode_examples
from fieldtune.errors import UserError
from fieldtune.records import Example, Message
from fieldtune.sources.tabular import read_rows

from .job import STEP_ROWS
from .texts import instructions, long_prefixes

INSTRUCTION_ROWS, LONG_PREFIX_ROWS = 1100, 200


@dataclass(frozen=True, slots=True)
class Case:
    """One workload on one model. steps: timed optimizer steps a round."""

    workload: str  # instruction | golf | long_prefix
    model: str
    adapter: str
    steps: int

    @property
    def name(self) -> str:
        return (
            f"{self.workload}_{'gpt2' if self.model == 'gpt2_124m' else 'full' if self.adapter == 'none' else 'lora'}"
        )


STEPS = {"instruction": 4, "golf": 1, "long_prefix": 1}
WORKLOADS = tuple(STEPS)
CASES = (
    *(
        Case(workload, "smollm2_135m", adapter, steps)
        for workload, steps in STEPS.items()
        for adapter in ("none", "lora")
    ),
    *(Case(workload, "gpt2_124m", "none", STEPS[workload]) for workload in ("instruction", "golf")),
)


def compose(case: Case, threads: int | None, precision: Precision, *words: str) -> Config:
    """A case's configuration: everything at its default but what the comparison fixes for all contenders."""
    shared = (
        "data=golf",
        f"model={case.model}",
        *(("model.weights=random",) if case.model == "gpt2_124m" else ()),
        f"adapter={case.adapter}",
        "trainer=fit",
        "trainer.weight_decay=0",  # the trainers spare biases and norms, so that any other value would not be one
        f"hardware.threads={'null' if threads is None else threads}",
        f"hardware.precision={precision.value}",
        "tracking=off",
    )
    return composed("train", [*shared, *words])


def encoded(case: Case, config: Config, instruction_file: Path | None) -> list[Encoded]:
    """All rows of a case's workload by its model's tokenizer, in an order that the seed decides."""
    from fieldtune.models.tokenizer import load_tokenizer
    from fieldtune.models.weights import resolve

    tokenizer = load_tokenizer(config.model.tokenizer, resolve(config.model, config).folder)
    if case.workload == "golf":
        examples = _examples(tasks.get("golf").examples(config.data, config.seed))
    elif case.workload == "long_prefix":
        examples = long_prefixes(LONG_PREFIX_ROWS, config.seed, lambda text: len(tokenizer.encode(text)))
    elif instruction_file is not None:
        examples = list(islice(_examples(read_rows(instruction_file, "instruction")), INSTRUCTION_ROWS))
    else:
        examples = instructions(INSTRUCTION_ROWS, config.seed)
    if case.workload == "instruction" and config.model.template is TemplateKind.chat:
        examples = [in_alpaca_form(example) for example in examples]
    rows = encode_examples(examples, Encoder(tokenizer, config.model.template), config.model.context_length).encoded
    needed = 1 + case.steps * STEP_ROWS
    if len(rows) < needed:
        raise UserError(f"{case.name} needs {needed} rows that can be trained on and has {len(rows)}; give more")
    order = np.random.default_rng(config.seed).permutation(len(rows))
    return [rows[index] for index in order]


def in_alpaca_form(example: Example) -> Example:
    """The example with the whole Alpaca prompt as the user's turn, as chat models are mostly given it."""
    user, answer = example.messages
    instruction, *rest = user.parts
    given = "".join(f"\n\n### Input:\n{part}" for part in rest if part)
    text = f"{ALPACA_HEADER}\n\n### Instruction:\n{instruction}{given}\n\n### Response:\n"
    return replace(example, messages=(Message("user", (text,)), answer))


def _examples(items: object) -> list[Example]:
    return [item for item in items if isinstance(item, Example)]  # type: ignore[attr-defined]
