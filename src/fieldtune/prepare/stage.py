"""The prepare stage: examples in, a data set folder out, with a manifest that says what it holds."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldtune import datasets, tasks
from fieldtune.config import Config, MixturePart, data_key, to_mapping
from fieldtune.errors import UserError
from fieldtune.prepare.mixture import mix
from fieldtune.prepare.near_duplicates import NearDuplicates, straddling
from fieldtune.prepare.pool import Pool
from fieldtune.prepare.preview import terminal_preview, write_preview
from fieldtune.prepare.split import assign, join_groups
from fieldtune.prepare.token_counts import count_tokens
from fieldtune.progress import Progress
from fieldtune.records import SPLITS, Example, Rejected, dump_line, file_sha256, fingerprint
from fieldtune.runs import MANIFEST, write_json
from fieldtune.sources.media_files import MediaFiles
from fieldtune.sources.tabular import read_rows
from fieldtune.tasks.base import Task
from fieldtune.tracking import Tracker

log = logging.getLogger("fieldtune")

POOL, QUARANTINE, PREVIEW = "pool.jsonl", "quarantine.jsonl", "preview.html"
MEDIA_INDEX = "media-index.jsonl"  # in cache_dir: which media files were read well
BUILDING = ".building-"  # and the process number
SHOWN = 5  # quarantined pieces named in the log
Rows = dict[str, NDArray[np.int64]]


def prepare(config: Config, run_dir: Path, tracker: Tracker) -> Mapping[str, Any]:
    """Make the data set of a configuration; returns the facts for the run's manifest."""
    home = datasets.task_folder(config)
    home.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(home)
    building = home / f"{BUILDING}{os.getpid()}"
    building.mkdir()
    try:
        manifest = _build(config, building)
        folder = _publish(home, building, manifest)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    datasets.record(config, manifest["fingerprint"])
    log.info("data set %s", folder)
    log.info("preview: %s", folder / PREVIEW)
    tokens = count_tokens(config, folder) if "media" in manifest else None
    facts = {key: manifest[key] for key in ("fingerprint", "rows", "near_duplicates", "quarantined")}
    files = [folder / f"{split}.jsonl" for split in SPLITS]
    tracker.artifact(f"{config.data.task}-data", "dataset", [*files, folder / MANIFEST], facts)
    tracker.log({f"rows/{split}": count for split, count in manifest["rows"].items()}, step=0)
    metrics = {f"rows/{split}": count for split, count in manifest["rows"].items()}
    return {"data": {"folder": str(folder), **facts, **({"tokens": tokens} if tokens else {})}, "metrics": metrics}


def _remove_abandoned(home: Path) -> None:
    """Folders of processes that were killed while they built; a number that is in use again is left alone."""
    for folder in home.glob(f"{BUILDING}*"):
        process = int(folder.name.removeprefix(BUILDING))
        if process == os.getpid() or not Path(f"/proc/{process}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _build(config: Config, folder: Path) -> dict[str, Any]:
    task = tasks.get(config.data.task)
    parts = _parts(config)
    index = Path(config.cache_dir).expanduser() / MEDIA_INDEX
    with Pool(folder / POOL) as pool, MediaFiles(index) as media:
        items = _items(config, parts, task, media)
        sources, groups, duplicates, quarantined = _read(config, items, pool, folder / QUARANTINE)
        if len(pool) == 0:
            raise UserError(f"no usable row was found; {quarantined} pieces are broken or refused")
        rows, gate = _split(config, parts, sources, groups, duplicates)
        for split in SPLITS:
            pool.write(folder / f"{split}.jsonl", rows[split])
        counts = _counts(pool, rows, task.breakdowns)
        examples = [pool.example(row) for row in rows["train"][: config.data.preview_rows]]
    (folder / POOL).unlink()
    manifest: dict[str, Any] = {
        "task": config.data.task,
        "fingerprint": fingerprint(folder / f"{split}.jsonl" for split in SPLITS),
        "rows": {split: len(rows[split]) for split in SPLITS},
        "counts": counts,
        "near_duplicates": gate,
        "quarantined": quarantined,
        **({"media": asdict(media.counts)} if media.counts.files else {}),
        "seed": config.seed,
        "config": to_mapping(config.data),
        "config_key": data_key(config),
    }
    exported = task.export(folder, {split: folder / f"{split}.jsonl" for split in SPLITS})
    facts = _facts(manifest)
    write_preview(folder / PREVIEW, f"{config.name}: {sum(manifest['rows'].values()):,} rows", examples, counts, facts)
    log.info("%s", terminal_preview(examples[:2], counts))
    for name, value in facts.items():
        log.info("%s: %s", name, value)
    names = [f"{split}.jsonl" for split in SPLITS] + [path.name for path in exported] + [QUARANTINE]
    manifest["sha256"] = {name: file_sha256(folder / name) for name in names}
    return manifest


def _parts(config: Config) -> list[MixturePart]:
    """The parts of the mixture; an optional one only if its file is there. The log says which."""
    found = []
    for part in config.data.mixture:
        there = Path(part.path).exists()
        if there or not part.optional:
            found.append(part)
        if part.optional:
            log.info("mixture: %s %s", part.name, f"joins ({part.path})" if there else f"is not there ({part.path})")
    return found


def _read(
    config: Config, items: Iterable[tuple[int, Example | Rejected]], pool: Pool, quarantine: Path
) -> tuple[NDArray[np.int64], list[str], NearDuplicates, int]:
    """Fill the pool. Returns each row's source number and group, the near-duplicates, how many were refused."""
    sources: list[int] = []
    groups: list[str] = []
    duplicates = NearDuplicates(config.data.near_duplicate)
    refused = 0
    progress = Progress("reading", getattr(config.data, "count", None) or 0)
    with quarantine.open("w", encoding="utf-8") as file:
        for number, item in items:
            if isinstance(item, Rejected):
                refused += 1
                if refused <= SHOWN:
                    place = f"{item.path}:{item.line}" if item.line else item.path
                    log.warning("%s is left out: %s", place, item.reason)
                file.write(dump_line({"path": item.path, "line": item.line, "reason": item.reason, "text": item.text}))
                continue
            pool.add(item)
            sources.append(number)
            groups.append(item.group)
            duplicates.add(_judged_text(item))
            if progress.total:
                progress.advance()
    if refused > SHOWN:
        log.warning("%d further pieces are left out; all are in %s", refused - SHOWN, QUARANTINE)
    return np.asarray(sources, dtype=np.int64), groups, duplicates, refused


def _judged_text(example: Example) -> str:
    """What near-duplicates are judged on: a system prompt that all rows share says nothing of a row, and what is asked
    of films is often the same, so rows with media are told apart by these alone."""
    if example.media:
        return " ".join(media.sha256 for media in example.media)
    return "\n".join(message.text for message in example.messages if message.role != "system")


def _items(
    config: Config, parts: Sequence[MixturePart], task: Task, media: MediaFiles
) -> Iterator[tuple[int, Example | Rejected]]:
    """(source number, example or refused piece): 0 is the task's own, then the parts of the mixture."""
    for item in media.screened(task.examples(config.data, config.seed)):
        yield 0, item
    for number, part in enumerate(parts, 1):
        for item in media.screened(read_rows(Path(part.path), part.name)):
            yield number, item if isinstance(item, Rejected) else _named(item, part)


def _named(example: Example, part: MixturePart) -> Example:
    """The example under its part's name, so that ids of two files cannot meet."""
    prefix = f"{part.name}/"
    return replace(example, id=prefix + example.id, group=prefix + example.group, source=part.name)


def _split(
    config: Config,
    parts: Sequence[MixturePart],
    sources: NDArray[np.int64],
    groups: Sequence[str],
    duplicates: NearDuplicates,
) -> tuple[Rows, dict[str, Any]]:
    """Shuffled row numbers of each split, training rows thinned to the mixture's weights; and the gate's figures."""
    alike = duplicates.groups()
    splits = assign(join_groups(groups, alike), config.data.split, config.seed)
    order = np.random.default_rng(config.seed).permutation(len(splits))
    rows = {split: order[splits[order] == number] for number, split in enumerate(SPLITS)}
    if parts:
        rows["train"] = _mixed(config, parts, sources, rows["train"])
    sizes = np.bincount(alike)
    gate = {
        "threshold": config.data.near_duplicate,
        "groups": int((sizes > 1).sum()),
        "rows_in_groups": int(sizes[sizes > 1].sum()),
        "largest_group": int(sizes.max()),
        "straddling": straddling(alike, splits),
    }
    if gate["straddling"]:
        raise RuntimeError(f"{gate['straddling']} near-duplicate groups are in two splits")
    return rows, gate


def _mixed(
    config: Config, parts: Sequence[MixturePart], sources: NDArray[np.int64], train: NDArray[np.int64]
) -> NDArray[np.int64]:
    names = [config.data.task, *(part.name for part in parts)]
    weights = [config.data.weight, *(part.weight for part in parts)]
    of_source = {name: train[sources[train] == number] for number, name in enumerate(names)}
    counts = {name: len(rows) for name, rows in of_source.items()}
    used = mix(counts, dict(zip(names, weights, strict=True)), config.seed)
    chosen = np.concatenate([of_source[name][used[name]] for name in names])
    log.info("mixture: %s", ", ".join(f"{name} {len(used[name]):,} of {counts[name]:,}" for name in names))
    return train[np.isin(train, chosen)]


def _counts(pool: Pool, rows: Rows, keys: Sequence[str]) -> dict[str, dict[str, int]]:
    """Rows by split, and by each of the task's breakdowns."""
    counts = {"split": {split: len(rows[split]) for split in SPLITS}}
    for key in keys:
        found = Counter(str(value) for split in SPLITS for value in pool.values(rows[split], key))
        counts[key] = dict(sorted(found.items()))
    return counts


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    gate = manifest["near_duplicates"]
    return {
        "fingerprint": manifest["fingerprint"][:12],
        "rows": ", ".join(f"{split} {count:,}" for split, count in manifest["rows"].items()),
        "near-duplicates": f"{gate['rows_in_groups']:,} rows in {gate['groups']:,} groups, "
        f"{gate['straddling']} groups in two splits (similarity {gate['threshold']:g} or more)",
        "quarantined": f"{manifest['quarantined']:,}",
        **_media_facts(manifest.get("media")),
    }


def _media_facts(counts: Mapping[str, int] | None) -> dict[str, str]:
    if counts is None:
        return {}
    told = f"{counts['files']:,} files, {counts['broken']:,} of no use, which cost {counts['rows']:,} rows"
    return {"media": told}


def _publish(home: Path, building: Path, manifest: dict[str, Any]) -> Path:
    """Move a finished folder to its place under its fingerprint; the same content made before is replaced."""
    write_json(building / MANIFEST, manifest)
    folder = home / str(manifest["fingerprint"])
    if folder.exists():
        old = home / f".old-{os.getpid()}"
        folder.rename(old)
        building.rename(folder)
        shutil.rmtree(old)
    else:
        building.rename(folder)
    return folder
