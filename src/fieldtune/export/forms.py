"""The forms an export has. Each maker writes its files, compares them with the tuned model, and returns the figures."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldtune.config import AdapterKind, Precision, TemplateKind
from fieldtune.errors import UserError
from fieldtune.export import template_check
from fieldtune.export.agreement import Agreement, agreement, must_be_near, must_keep
from fieldtune.export.turns import FOLD, turns
from fieldtune.export.work import Work
from fieldtune.models.exported import (
    CPU,
    Said,
    check_state_dict,
    load_adapter,
    load_plain,
    save_state_dict,
    save_whole,
)
from fieldtune.models.run_model import RunModel
from fieldtune.models.tokenizer import load_tokenizer
from fieldtune.models.weights import build

log = logging.getLogger("fieldtune")

Checks = dict[str, Any]
JINJA = "chat_template.jinja"
_ADAPTER_PAGE = """\
# {name}: a LoRA adapter

Its base is `{weights}`, revision `{revision}`.

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("{base}", revision={revision!r})
    model = PeftModel.from_pretrained(base, "THIS_FOLDER")
"""  # in place of PEFT's model card, which names a folder of this machine


def make_adapter(work: Work) -> Checks:
    """The PEFT adapter with its base and revision, read back by PEFT onto that base."""
    if not work.has_adapter:
        raise UserError(f"{work.run.folder} has no adapter: every weight was trained; give to=merged")
    if work.source.folder is None or work.source.adapter is not None:
        raise UserError(
            f"the adapter's base, {work.config.model.weights}, is nothing that others can load; give to=merged"
        )
    shutil.copytree(work.adapter, work.folder, dirs_exist_ok=True)
    write_template(work, work.folder)
    path = work.folder / "adapter_config.json"
    settings = {**json.loads(path.read_text(encoding="utf-8")), "revision": work.config.model.revision}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    weights = work.config.model.weights
    base = weights.removeprefix("hub:") if weights.startswith("hub:") else f"FOLDER_OF_{weights}"
    page = _ADAPTER_PAGE.format(name=work.config.name, base=base, weights=weights, revision=settings["revision"])
    (work.folder / "README.md").write_text(page, encoding="utf-8")
    if "answers" in work.options.skip:
        return {}
    wanted = _tuned_says(work)
    found = agreement(wanted, work.said(load_adapter(build(work.config.model, work.source), work.folder)))
    tell("the adapter read back", found)
    must_be_near("the adapter that PEFT reads back", found, work.options.max_difference)
    return {"adapter": found.facts(), **compared_on(work)}


def _tuned_says(work: Work) -> Said:
    with work.models.system("tuned") as tuned:
        said = work.said(tuned)
    work.models.release()
    return said


def make_merged(work: Work) -> Checks:
    """The model as one, the adapter merged into the base in full precision; read back by transformers."""
    checks, wanted = merge(work, work.folder, Precision[work.options.precision])
    write_template(work, work.folder)
    if wanted is None:
        return checks
    found = agreement(wanted, work.said(load_plain(work.folder)))
    tell("the files read back", found)
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


def merge(work: Work, folder: Path, precision: Precision) -> tuple[Checks, Said | None]:
    """Write the merged model into a folder. What the tuned model says before, and how near the merged one comes."""
    checks: Checks = {}
    wanted = None
    with work.models.system("tuned") as tuned:
        if "answers" not in work.options.skip:
            wanted = work.said(tuned)
        model = tuned.merge_and_unload() if work.has_adapter else tuned
        if wanted is not None and work.has_adapter:
            found = agreement(wanted, work.said(model))
            tell("merged against adapter", found)
            must_be_near("the merged model", found, work.options.max_difference)
            checks = {"merged": found.facts(), **compared_on(work), **_four_bits(work, wanted)}
    work.models.release()  # it is merged now; and the files are read back beside it
    save_whole(model, work.models.tokenizer, folder, precision, work.source.folder)
    return checks, wanted


def compared_on(work: Work) -> Checks:
    return {"compared_on": {"split": work.split, "rows": len(work.rows.encoded), "tokens": work.options.tokens}}


def _four_bits(work: Work, wanted: Said) -> Checks:
    """After QLoRA: how far the adapter on the 4-bit base, as it was trained, is from the same on whole weights."""
    if work.trained.adapter.kind is not AdapterKind.qlora:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        log.warning("the 4-bit base was not compared: bitsandbytes is not installed")
        return {"four_bits": "not checked"}
    with RunModel(work.run, replace(work.trained, hardware=CPU)).system("tuned") as packed:
        found = agreement(wanted, work.said(packed))
    tell("the 4-bit base that was trained on, against whole weights", found)
    return {"four_bits": found.facts()}


def write_template(work: Work, folder: Path) -> None:
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


def tell(what: str, found: Agreement) -> None:
    log.info("%s", found.line(what))
