"""An export from a finished run to a folder that is there whole, or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fieldtune.config import to_mapping
from fieldtune.errors import UserError
from fieldtune.export import converter, gguf_file, ollama, template_check
from fieldtune.export.forms import Checks, make_adapter, make_merged, make_pth
from fieldtune.export.llama_forms import make_gguf, make_ollama
from fieldtune.export.options import Options
from fieldtune.export.work import Work, open_work
from fieldtune.records import file_sha256
from fieldtune.runs import find_run, versions, write_json

log = logging.getLogger("fieldtune")

MANIFEST = "export.json"
_MAKERS: Mapping[str, Callable[[Work], Checks]] = {
    "adapter": make_adapter,
    "merged": make_merged,
    "gguf": make_gguf,
    "ollama": make_ollama,
    "pth": make_pth,
}


def export(options: Options, output_dir: Path = Path("outputs")) -> Path:
    """Make, check and publish what is asked for; returns the folder. `UserError` leaves nothing behind."""
    run = find_run(output_dir, options.run)
    form = f"{options.to}-{options.quantization}" if options.is_gguf else options.to
    target = options.out or run.folder / "exports" / form
    if target.exists():
        raise UserError(f"{target} is there already; delete it, or give another out=FOLDER")
    _need(options)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        work = open_work(run, options, beside)
        if options.to == "ollama":
            ollama.must_run(work.model_type)
        checks = _MAKERS[options.to](work)
        write_json(beside / MANIFEST, _manifest(work, checks))
        _open_to_readers(beside)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for name in sorted(options.skip):
        log.warning("not checked: %s (skip=%s)", name, name)
    return target


def _need(options: Options) -> None:
    """What is missing on this machine is said before anything is loaded."""
    if options.is_gguf:
        gguf_file.need_packages(options.quantization, asked="answers" not in options.skip)
    if options.to == "ollama" and "template" not in options.skip and not template_check.has_go():
        raise UserError(template_check.MISSING_GO)


def _open_to_readers(folder: Path) -> None:
    """As other folders and files are: temporary ones are their owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _manifest(work: Work, checks: dict[str, Any]) -> dict[str, Any]:
    run, options = work.run, work.options
    files = sorted(path for path in work.folder.rglob("*") if path.is_file())
    return {
        "to": options.to,
        **({"quantization": options.quantization} if options.is_gguf else {}),
        **({"precision": options.precision} if options.to == "merged" else {}),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "run": {
            "folder": str(run.folder),
            "name": run.name,
            "id": run.started["id"],
            "created": run.started["created"],
            "git": run.started["git"],
            "data": run.manifest()["data"]["fingerprint"],
        },
        "base": work.base_facts(),
        "adapter": to_mapping(work.trained.adapter),
        "template": work.config.model.template.name,
        "architecture": work.model_type,
        "context_length": work.config.model.context_length,
        "converter": {"package": converter.PACKAGE, "version": converter.VERSION} if options.is_gguf else None,
        "versions": versions(),
        "checks": {**checks, **dict.fromkeys(sorted(options.skip), "not checked")},
        "files": {
            str(path.relative_to(work.folder)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in files
        },
    }
