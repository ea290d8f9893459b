"""Checkpoints of a run: published whole by rename, checked before use, never the last good one removed.

checkpoints/
  best.safetensors       the trained weights with the lowest validation loss so far
  step-00000040/         one checkpoint
    state.ckpt           weights, optimizer, schedule, position in the data, random states (Lightning's form)
    best.safetensors     the best weights as they were at that step (a hard link)
    complete.json        written last: step, size and SHA-256 of each file
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from fieldtune.errors import REFUSALS, UserError
from fieldtune.records import file_sha256
from fieldtune.runs import read_json, write_json
from fieldtune.training.state_files import StateFiles, save_safetensors

log = logging.getLogger("fieldtune")

CHECKPOINTS, STATE, BEST, COMPLETE = "checkpoints", "state.ckpt", "best.safetensors", "complete.json"


class CheckpointError(UserError):
    """A checkpoint cannot be written or read, for a reason outside the program and its input."""

    exit_code = 1


class Checkpoints:
    """The checkpoints of one run folder; `keep` of them stay. Of several processes one writes."""

    def __init__(self, run_dir: Path, keep: int, *, writes: bool = True) -> None:
        self.run_dir, self.folder, self.keep, self.writes = run_dir, run_dir / CHECKPOINTS, keep, writes
        self.files = StateFiles()  # a Lightning plugin: how one state becomes a file
        self._best_sum: dict[str, Any] | None = None  # of best.safetensors as it is now

    def resume(self) -> Path | None:
        """The state to go on from, or None for a run without a checkpoint. Puts best.safetensors as it was then.

        `CheckpointError` if there are checkpoints and none is whole: a run does not silently start again.
        """
        if not self.writes:
            found = self._newest_whole()
            return found / STATE if found else None
        with self._explained("the checkpoints could not be read in"):
            self.folder.mkdir(exist_ok=True)
            for left in self.folder.glob(".*.tmp"):
                log.info("removing %s, which was not finished", left)
                _remove(left)
            newest = self._newest_whole()
            (self.folder / BEST).unlink(missing_ok=True)
            if newest is None:
                return None
            if (newest / BEST).exists():
                _link(newest / BEST, self.folder / BEST)
                self._best_sum = read_json(newest / COMPLETE)["files"][BEST]
            return newest / STATE

    def keep_best(self, state: Mapping[str, Tensor]) -> None:
        """Replace best.safetensors."""
        if not self.writes:
            return
        size = sum(tensor.nbytes for tensor in state.values())
        with self._explained("the best weights were not written to", size):
            beside = self.folder / f".{BEST}.tmp"
            save_safetensors(dict(state), beside)
            _sync(beside)
            beside.replace(self.folder / BEST)
            self._best_sum = None

    def save(self, trainer: pl.Trainer, step: int, told: Iterable[Path] = ()) -> None:
        """Publish a checkpoint of optimizer step `step`. told: files that must be on the disk before it is.

        Every process of a distributed training calls this; the first one writes.
        """
        name = _name(step)
        building = self.folder / f".{name}.tmp"
        with self._explained(f"the checkpoint of step {step} was not written to", lambda: self.files.size):
            if trainer.is_global_zero:
                _remove(building)
                building.mkdir()
            trainer.strategy.barrier()
            trainer.save_checkpoint(building / STATE)
            if trainer.is_global_zero:
                for path in told:
                    if path.exists():
                        _sync(path)
                self._complete(building, step)
                _remove(self.folder / name)  # a damaged one that was not gone on from
                building.rename(self.folder / name)
                _sync(self.folder)
                self._retire(step)

    def steps(self) -> list[int]:
        """Steps of the published checkpoints, oldest first."""
        found = (re.fullmatch(r"step-(\d{8,})", path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in found if match)

    def _complete(self, building: Path, step: int) -> None:
        sums: dict[str, Any] = {}
        if (self.folder / BEST).exists():
            _link(self.folder / BEST, building / BEST)
            self._best_sum = self._best_sum or _sum(building / BEST)
            sums[BEST] = self._best_sum
        for path in sorted(building.rglob("*")):
            if path.is_file() and path.name != BEST:
                sums[str(path.relative_to(building))] = _sum(path)
        write_json(building / COMPLETE, {"step": step, "files": sums})
        _sync(building / COMPLETE)
        _sync(building)

    def _newest_whole(self) -> Path | None:
        steps = self.steps()
        for step in reversed(steps):
            folder = self.folder / _name(step)
            damage = _damage(folder)
            if damage is None:
                return folder
            log.warning("the checkpoint %s is damaged (%s)", folder, damage)
        if steps:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole (see log.txt); put them back from a copy, "
                f"or remove {self.folder} to train again from the start"
            )
        return None

    def _retire(self, newest: int) -> None:
        """Of the checkpoints up to the newest, the last `keep` stay; later ones are damaged ones of before."""
        steps = self.steps()
        kept = [step for step in steps if step <= newest][-self.keep :]
        for step in steps:
            if step not in kept:
                # Out of sight first: a removal that is cut off must not look like a damaged checkpoint.
                gone = self.folder / f".{_name(step)}.gone.tmp"
                _remove(gone)
                (self.folder / _name(step)).rename(gone)
                _remove(gone)

    @contextmanager
    def _explained(self, what: str, needed: Any = 0) -> Iterator[None]:
        """An error of the disk as one line: what, where, what is needed and free, what still stands, what to do."""
        try:
            yield
        except OSError as error:
            for left in self.folder.glob(".*.tmp"):
                _remove(left)
            size = needed() if callable(needed) else needed
            room = f" ({_bytes(size)} needed, {_bytes(shutil.disk_usage(self.run_dir).free)} free)" if size else ""
            steps = self.steps()
            stands = f"the checkpoint of step {steps[-1]} is untouched" if steps else "there is no earlier checkpoint"
            advice = REFUSALS.get(error.errno or 0, "mend it")
            raise CheckpointError(
                f"{what} {self.folder}: {error.strerror or error}{room}; {stands}; {advice}, then go on with the "
                f"same command and run_dir={self.run_dir}"
            ) from error


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _sum(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _damage(folder: Path) -> str | None:
    """What is wrong with a published checkpoint; None if it is whole."""
    try:
        files = read_json(folder / COMPLETE)["files"]
        for name, wanted in files.items():
            if not (folder / name).exists():
                return f"{name} is missing"
            if _sum(folder / name) != wanted:
                return f"{name} has another content than {COMPLETE} says"
    except (UserError, KeyError, TypeError, AttributeError) as error:
        return f"{COMPLETE} is missing or broken: {error}"
    return None if STATE in {name.partition("/")[0] for name in files} else f"{COMPLETE} does not name {STATE}"


def _sync(path: Path) -> None:
    """Have a file's or folder's content on the disk before going on: a power cut then takes nothing of it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)  # a file system without links
        _sync(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
