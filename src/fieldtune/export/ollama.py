"""What Ollama is given beside the GGUF file: Modelfile, the answers' JSON schemas, a page of commands.

Facts about Ollama are of version 0.33 (its documentation and source). Adapters (`ADAPTER`) are not used: it takes them
for Llama and Gemma 2 only, advises against those of QLoRA, and later versions drop them. A GGUF of the merged model is
the route that works for all families here, Mistral among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldtune import tasks
from fieldtune.config import Config
from fieldtune.errors import UserError
from fieldtune.export.modelfile import QUOTES, write_modelfile
from fieldtune.export.turns import Turns
from fieldtune.models.tokenizer import Tokenizer
from fieldtune.records import Example
from fieldtune.runs import write_json, write_text

MODELFILE, GGUF, README, SCHEMAS = "Modelfile", "model.gguf", "README.md", "schemas"
# transformers' names of what Ollama runs from a GGUF file.
ARCHITECTURES = (
    "llama",
    "mistral",
    "mixtral",
    "gemma",
    "gemma2",
    "gemma3_text",
    "qwen2",
    "qwen3",
    "phi3",
    "olmo2",
    "cohere",
    "granite",
)


def must_run(model_type: str) -> None:
    """`UserError` for an architecture that Ollama does not run."""
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"Ollama does not run {model_type} models; to=gguf is for llama.cpp, to=merged for transformers "
            f"(Ollama runs {', '.join(ARCHITECTURES)})"
        )


def common_system(examples: Iterable[Example]) -> str | None:
    """The system text that all rows share; None if they have none, or several."""
    found = Counter(row.messages[0].text if row.messages[0].role == "system" else None for row in examples)
    return next(iter(found)) if len(found) == 1 else None


def modelfile(config: Config, turns: Turns, tokenizer: Tokenizer, system: str | None) -> str:
    """The Modelfile's text. Sampling is as in the run's evaluation, and nothing else is on that would change it."""
    lines = [("FROM", f"./{GGUF}"), ("TEMPLATE", turns.ollama())]
    if system is not None and _stands(system):
        lines.append(("SYSTEM", system))
    settings = config.evaluation
    parameters: list[tuple[str, object]] = [
        ("num_ctx", config.model.context_length),
        ("num_predict", settings.max_new_tokens),
        ("temperature", f"{settings.temperature:g}"),
        ("top_k", settings.top_k),
        ("top_p", 1),
        ("min_p", 0),
        ("repeat_penalty", 1),
        ("seed", config.seed),
    ]
    parameters += [("stop", text) for index in sorted(tokenizer.stop_ids) if (text := tokenizer.special(index))]
    lines += [(f"PARAMETER {name}", str(value)) for name, value in parameters]
    return write_modelfile(lines)


def _stands(system: str) -> bool:
    """Whether a Modelfile can hold a text: it ends at its quotes, and loses letters that are not printable."""
    return QUOTES not in system and all(letter.isprintable() or letter in "\n\t" for letter in system)


def write_beside(folder: Path, config: Config, text: str, system: str | None) -> list[str]:
    """Write Modelfile, schemas and page into a folder that holds the GGUF; returns what the caller should know."""
    write_text(folder / MODELFILE, text)
    schemas = tasks.answer_schemas(config.data.task)
    if schemas:
        (folder / SCHEMAS).mkdir()
    for name, schema in schemas.items():
        write_json(folder / SCHEMAS / f"{name}.json", schema)
    notes = []
    if system is None:
        notes.append("the rows share no system text, so the Modelfile has no SYSTEM: send yours with each request")
    elif not _stands(system):
        notes.append("a Modelfile cannot hold the rows' system text, so it has no SYSTEM: send it with each request")
    write_text(folder / README, _page(config, schemas, notes))
    return notes


def _page(config: Config, schemas: Mapping[str, Any], notes: list[str]) -> str:
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in config.name.lower())
    lines = [
        f"# {config.name} for Ollama",
        "",
        f"    ollama create {name} -f {MODELFILE}",
        f'    ollama run {name} "..."',
        "",
        f"`{MODELFILE}` holds the template, the stop tokens, the context and the sampling that the model was trained",
        "and evaluated with. `export.json` says what was compared with the trained model, and how near it came.",
    ]
    lines += ["", *(f"- {note}." for note in notes)] if notes else []
    if schemas:
        lines += [
            "",
            "An answer is held to a schema by a request's `format`, as in",
            "",
            f"    jq -n --slurpfile schema {SCHEMAS}/{min(schemas)}.json --arg text '...' \\",
            f'      \'{{model: "{name}", stream: false, format: $schema[0],',
            '        messages: [{role: "user", content: $text}]}\' \\',
            "      | curl -s http://localhost:11434/api/chat -d @-",
            "",
            "Valid by the schema is not right: check the answer (`fieldtune validate`) before it is applied.",
        ]
    return "\n".join(lines) + "\n"
