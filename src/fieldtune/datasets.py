"""Data set folders: versioned by content hash, found by the configuration that made them.

datasets/<task>/<fingerprint>/          train.jsonl val.jsonl test.jsonl ... manifest.json
datasets/<task>/config-<data key>.json  which fingerprint a configuration made last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldtune.config import Config, data_key
from fieldtune.errors import UserError
from fieldtune.records import SPLITS, file_sha256
from fieldtune.runs import MANIFEST, Run, read_json, write_json


@dataclass(frozen=True, slots=True)
class Dataset:
    """A prepared data set."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def rows(self) -> dict[str, int]:
        """Rows in each split."""
        return {split: int(self.manifest["rows"][split]) for split in SPLITS}

    def split(self, name: str) -> Path:
        """The JSON Lines file of a split."""
        return self.folder / f"{name}.jsonl"

    def verify(self) -> None:
        """Compare each split with the hash that prepare recorded; `UserError` names the changed file."""
        for split in SPLITS:
            if file_sha256(self.split(split)) != self.manifest["sha256"][f"{split}.jsonl"]:
                raise UserError(f"{self.split(split)} was changed after it was prepared; run prepare.py again")


def task_folder(config: Config) -> Path:
    """The folder of a task's data sets."""
    return Path(config.dataset_dir) / config.data.task


def record(config: Config, fingerprint: str) -> None:
    """Remember which data set this configuration made."""
    write_json(task_folder(config) / f"config-{data_key(config)}.json", {"fingerprint": fingerprint})


def find(config: Config) -> Dataset | None:
    """The data set that this configuration made, or None."""
    pointer = task_folder(config) / f"config-{data_key(config)}.json"
    if not pointer.exists():
        return None
    return open_dataset(task_folder(config) / str(read_json(pointer)["fingerprint"]))


def prepared(config: Config) -> Dataset:
    """The data set that this configuration made; `UserError` without one. Its files are not looked at."""
    dataset = find(config)
    if dataset is None:
        raise UserError("the data set of this configuration is not prepared; run prepare.py with the same words first")
    return dataset


def of_run(config: Config, run: Run) -> Dataset:
    """The data set that a finished run was trained on; `UserError` if it is not there any more."""
    folder = task_folder(config) / str(run.manifest()["data"]["fingerprint"])
    dataset = open_dataset(folder)
    if dataset is None:
        raise UserError(f"the data set of {run.folder} is gone ({folder}); run prepare.py with that run's words again")
    return dataset


def open_dataset(folder: Path) -> Dataset | None:
    """A data set folder, or None if it is not there or not finished."""
    if not (folder / MANIFEST).exists():
        return None
    return Dataset(folder, read_json(folder / MANIFEST))
