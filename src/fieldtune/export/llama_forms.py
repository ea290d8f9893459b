"""The forms that llama.cpp runs: a GGUF file, and with a Modelfile beside it a model for Ollama."""

from __future__ import annotations

import shutil
from pathlib import Path

from fieldtune import datasets, ranks
from fieldtune.config import Precision
from fieldtune.export import ollama, template_check
from fieldtune.export.agreement import agreement, must_keep
from fieldtune.export.footprint import footprint
from fieldtune.export.forms import Checks, compared_on, log, merge, tell, write_template
from fieldtune.export.gguf_file import convert
from fieldtune.export.llama import Llama
from fieldtune.export.modelfile import read_modelfile
from fieldtune.export.turns import Turns, turns
from fieldtune.export.work import Work
from fieldtune.models.exported import Said, answer_places
from fieldtune.records import read_examples


def make_gguf(work: Work) -> Checks:
    """A GGUF file of the merged model, asked by llama.cpp's library."""
    return _gguf(work)[0]


def make_ollama(work: Work) -> Checks:
    """A GGUF file with Modelfile, schemas and page; the TEMPLATE gives the token ids of training."""
    checks, found, begin = _gguf(work)
    training = datasets.of_run(work.config, work.run).split("train")
    system = ollama.common_system(read_examples(training))
    text = ollama.modelfile(work.trained, found, work.models.tokenizer, system)
    for note in ollama.write_beside(work.folder, work.config, text, system):
        log.info("%s", note)
    if "template" in work.options.skip:
        return checks
    encoder, said = work.models.encoder, template_check.conversations(work.rows.examples)
    texts = template_check.rendered_by_go(dict(read_modelfile(text))["TEMPLATE"], said)
    tokenizer = template_check.tokenizer_of(encoder, begin)
    checks["template"] = {"go": template_check.compare("the Modelfile's TEMPLATE", encoder, said, texts, tokenizer)}
    if "answers" not in work.options.skip:
        with Llama(work.folder / ollama.GGUF, 512, ranks.cores()) as llama:
            checks["template"]["llama.cpp"] = template_check.compare(
                "the Modelfile's TEMPLATE, tokenized by llama.cpp,", encoder, said, texts, llama.tokenize
            )
    for name, facts in checks["template"].items():
        log.info("TEMPLATE (%s): the token ids of training in %d of %d conversations", name, facts["equal"], len(said))
    return checks


def _gguf(work: Work) -> tuple[Checks, Turns, str]:
    """The GGUF file and its figures; the run's turns, and the begin token that llama.cpp puts before a prompt."""
    whole, path = work.folder / ".merged", work.folder / ollama.GGUF
    whole.mkdir()
    checks, wanted = merge(work, whole, Precision.fp32)
    write_template(work, whole)
    found = turns(work.models.encoder)
    begin = str(getattr(work.models.tokenizer.native, "bos_token", None) or "")
    begin = begin if begin and found.opening.startswith(begin) else ""
    convert(whole, path, work.options.quantization, work.cache, begins=bool(begin))
    shutil.rmtree(whole)
    memory = footprint(path.stat().st_size, work.settings(), work.config.model.context_length)
    log.info(
        "running it takes about %.2f GB for %d tokens", sum(memory.values()) / 1e9, work.config.model.context_length
    )
    checks = {**checks, "memory": memory}
    if wanted is not None:
        compared = agreement(wanted, _said_by_llama(work, path))
        tell(f"{work.options.quantization} in llama.cpp", compared)
        must_keep(f"the GGUF in {work.options.quantization}", compared, work.options.bounds)
        checks = {**checks, **compared_on(work), "gguf": compared.facts()}
    return checks, found.without_begin(begin), begin


def _said_by_llama(work: Work, path: Path) -> Said:
    tokenizer, encoder = work.models.tokenizer, work.models.encoder
    longest = max(len(row.ids) for row in work.rows.encoded)
    logits, answers = [], []
    with Llama(path, longest + work.options.tokens, ranks.cores()) as llama:
        for row, example in zip(work.rows.encoded, work.rows.examples, strict=True):
            places = answer_places(row, work.options.tokens).tolist()
            logits.append(llama.logits(row.ids[: places[-1] + 1].tolist(), places))
            tokens = llama.answer(encoder.prompt(example.prompt), work.options.tokens, tokenizer.stop_ids)
            answers.append(tokenizer.decode(tokens).strip())
    return Said(logits, answers)
