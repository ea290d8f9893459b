"""The forms an export has. Each maker writes its files, compares them with the tuned model, and returns the figures."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fieldtune import ranks
from fieldtune.config import AdapterKind, Precision, TemplateKind
from fieldtune.errors import UserError
from fieldtune.export import ollama, template_check
from fieldtune.export.agreement import Agreement, agreement, must_be_near, must_keep
from fieldtune.export.gguf_file import convert
from fieldtune.export.llama import Llama
from fieldtune.export.modelfile import read_modelfile
from fieldtune.export.turns import FOLD, Turns, turns
from fieldtune.export.work import Work
from fieldtune.models.exported import (
    CPU,
    Said,
    answer_places,
    check_state_dict,
    load_adapter,
    load_plain,
    save_state_dict,
    save_whole,
)
from fieldtune.models.run_model import RunModel
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.models.weights import build
from fieldtune.records import read_examples

log = logging.getLogger("fieldtune")

Checks = dict[str, Any]
JINJA = "chat_template.jinja"


def make_adapter(work: Work) -> Checks:
    """The PEFT adapter with its base and revision, read back by PEFT onto that base."""
    if not work.has_adapter:
        raise UserError(f"{work.run.folder} has no adapter: every weight was trained; give to=merged")
    if work.source.folder is None or work.source.adapter is not None:
        raise UserError(
            f"the adapter's base, {work.config.model.weights}, is nothing that others can load; give to=merged"
        )
    shutil.copytree(work.adapter, work.folder, dirs_exist_ok=True)
    _write_template(work, work.folder)
    path = work.folder / "adapter_config.json"
    settings = {**json.loads(path.read_text(encoding="utf-8")), "revision": work.config.model.revision}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if "answers" in work.options.skip:
        return {}
    with work.models.system("tuned") as tuned:
        wanted = work.said(tuned)
    found = agreement(wanted, work.said(load_adapter(build(work.config.model, work.source), work.folder)))
    _tell("the adapter read back", found)
    must_be_near("the adapter that PEFT reads back", found, work.options.max_difference)
    return {"adapter": found.facts(), **_rows(work)}


def make_merged(work: Work) -> Checks:
    """The model as one, the adapter merged into the base in full precision; read back by transformers."""
    checks, wanted = _merge(work, work.folder, Precision[work.options.precision])
    _write_template(work, work.folder)
    if wanted is None:
        return checks
    found = agreement(wanted, work.said(load_plain(work.folder)))
    _tell("the files read back", found)
    if work.options.precision == "fp32":
        must_be_near("the merged model that transformers reads back", found, work.options.max_difference)
    else:
        must_keep(f"the merged model in {work.options.precision}", found, work.options.bounds)
    return {**checks, "read_back": found.facts()}


def make_pth(work: Work) -> Checks:
    """The tuned model as a plain state dict, read back with `weights_only=True`."""
    name = f"{work.config.model.name}-{work.config.name}.pth"
    with work.models.system("tuned") as tuned:
        model = tuned.merge_and_unload() if work.has_adapter else tuned
    save_state_dict(model, work.folder / name)
    return {"read_back": {"numbers": check_state_dict(model, work.folder / name), "equal": True}}


def make_gguf(work: Work) -> Checks:
    """A GGUF file of the merged model, asked by llama.cpp's library."""
    return _gguf(work)[0]


def make_ollama(work: Work) -> Checks:
    """A GGUF file with Modelfile, schemas and page; the TEMPLATE gives the token ids of training."""
    checks, found, begin = _gguf(work)
    rows = read_examples(_train_rows(work))
    system = ollama.common_system(rows)
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


MAKERS: Mapping[str, Callable[[Work], Checks]] = {
    "adapter": make_adapter,
    "merged": make_merged,
    "gguf": make_gguf,
    "ollama": make_ollama,
    "pth": make_pth,
}


def _train_rows(work: Work) -> Path:
    from fieldtune import datasets

    return datasets.of_run(work.config, work.run).split("train")


def _merge(work: Work, folder: Path, precision: Precision) -> tuple[Checks, Said | None]:
    """Write the merged model into a folder. What the tuned model says before, and how near the merged one comes."""
    checks: Checks = {}
    wanted = None
    with work.models.system("tuned") as tuned:
        if "answers" not in work.options.skip:
            wanted = work.said(tuned)
        model = tuned.merge_and_unload() if work.has_adapter else tuned
        if wanted is not None and work.has_adapter:
            found = agreement(wanted, work.said(model))
            _tell("merged against adapter", found)
            must_be_near("the merged model", found, work.options.max_difference)
            checks = {"merged": found.facts(), **_rows(work), **_four_bits(work, wanted)}
    save_whole(model, work.models.tokenizer, folder, precision, work.source.folder)
    return checks, wanted


def _rows(work: Work) -> Checks:
    return {"compared_on": {"split": work.split, "rows": len(work.rows.encoded), "tokens": work.options.tokens}}


def _four_bits(work: Work, wanted: Said) -> Checks:
    """After QLoRA: how far the adapter on the 4-bit base, as it was trained, is from the same on whole weights."""
    if work.trained.adapter.kind is not AdapterKind.qlora:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        log.warning("the 4-bit base was not compared: bitsandbytes is not installed")
        return {"four_bits": "not checked"}
    from dataclasses import replace

    with RunModel(work.run, replace(work.trained, hardware=CPU)).system("tuned") as packed:
        found = agreement(wanted, work.said(packed))
    _tell("the 4-bit base that was trained on, against whole weights", found)
    return {"four_bits": found.facts()}


def _gguf(work: Work) -> tuple[Checks, Turns, str]:
    """The GGUF file and its figures; the run's turns, and the begin token that llama.cpp puts before a prompt."""
    whole, path = work.folder / ".merged", work.folder / ollama.GGUF
    whole.mkdir()
    checks, wanted = _merge(work, whole, Precision.fp32)
    _write_template(work, whole)
    found = turns(work.models.encoder)
    begin = str(getattr(work.models.tokenizer.native, "bos_token", None) or "")
    begin = begin if begin and found.opening.startswith(begin) else ""
    convert(whole, path, work.options.quantization, work.cache, begins=bool(begin))
    shutil.rmtree(whole)
    if wanted is not None:
        compared = agreement(wanted, _said_by_llama(work, path))
        _tell(f"{work.options.quantization} in llama.cpp", compared)
        must_keep(f"the GGUF in {work.options.quantization}", compared, work.options.bounds)
        checks = {**checks, **_rows(work), "gguf": compared.facts()}
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


def _write_template(work: Work, folder: Path) -> None:
    """The run's template for programs that render the tokenizer's own: with the system text where training had it."""
    encoder = work.models.encoder
    path = folder / JINJA
    if work.config.model.template is TemplateKind.alpaca:
        path.write_text(turns(encoder).jinja(), encoding="utf-8")
    elif encoder.folds_system:
        own = path.read_text(encoding="utf-8")
        path.write_text(own if own.startswith(FOLD) else FOLD + own, encoding="utf-8")
    else:
        return
    chat = load_tokenizer(type(work.config.model.tokenizer).from_weights, folder).chat
    said = [one for one in template_check.conversations(work.rows.examples) if not one.edges]
    template_check.compare(
        "the published chat template",
        encoder,
        said,
        template_check.jinja_texts(chat, said),
        template_check.tokenizer_of(encoder, ""),
    )


def _tell(what: str, found: Agreement) -> None:
    log.info("%s", found.line(what))
