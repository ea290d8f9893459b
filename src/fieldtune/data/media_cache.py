"""Frames and features that are made once: a cache on disk, keyed by content, shared by processes, bounded in bytes.

An entry belongs to a file's bytes (not its name), to how it was sampled and to what was done with the frames. It is one
file (`cache_entry`), written beside its place and moved in when it is whole.

    FOLDER/<2 digits>/<key>.entry    the entries
    FOLDER/locks/<2 digits>.lock     held while an entry whose key begins so is made
    FOLDER/bytes, FOLDER/bytes.lock  how much all entries take
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from fieldtune.data.cache_entry import Array, CorruptEntry, Entry, entry_bytes, open_entry, write_entry
from fieldtune.errors import UserError

log = logging.getLogger("fieldtune")

ABANDONED = 3600.0  # seconds after the last write until a temporary file is that of a killed process


@dataclass(frozen=True, slots=True)
class Key:
    """content: SHA-256 of the media file's bytes. sampling, processor: JSON values that say which frames were taken and
    what was made of them; whatever changes the arrays has to be in them (sizes, means, a frozen tower's weights)."""

    content: str
    sampling: Any
    processor: Any

    @property
    def facts(self) -> dict[str, Any]:
        return {"content": self.content, "sampling": self.sampling, "processor": self.processor}

    @property
    def name(self) -> str:
        text = json.dumps(self.facts, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Counts:
    """What this process did. made: entries computed, those in place of corrupt ones (rebuilt) among them. read: entries
    that were there. evicted: entries removed to make room. unsaved: entries that were made but did not fit."""

    made: int = 0
    read: int = 0
    rebuilt: int = 0
    evicted: int = 0
    unsaved: int = 0


def needs(items: int, shape: Sequence[int], dtype: str) -> int:
    """Bytes of disk that `items` entries of one such array take."""
    return items * entry_bytes(shape, dtype)


class MediaCache:
    """Entries by key. Several threads and processes may use one folder; each process has an object of its own.

    max_bytes: of all entries together; null: no bound. The least recently used go first, never one that this process
    has open; an entry for which there is no room is handed out all the same, but not kept. The sum of an entry is
    compared when a process opens it for the first time.
    """

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self.counts = Counts()
        self._folder = folder
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._open: weakref.WeakKeyDictionary[mmap.mmap, str] = weakref.WeakKeyDictionary()
        self._verified: dict[str, int] = {}  # key -> number of the file that was compared
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()

    def __reduce__(self) -> tuple[type[MediaCache], tuple[Path, int | None]]:
        """A worker process gets a cache of its own on the same folder."""
        return MediaCache, (self._folder, self._max_bytes)

    def get(self, key: Key, make: Callable[[], Mapping[str, Array]]) -> Entry:
        """The entry of a key; `make` gives its arrays where there is none, once however many processes ask.

        What `make` raises comes through, and nothing is kept. It must not ask this cache.
        """
        name = key.name
        entry, _ = self._look(name)
        if entry is None:
            with FileLock(self._folder / "locks" / f"{name[:2]}.lock"):
                entry, fault = self._look(name)  # another process may have made it while this one waited
                if entry is None:
                    return self._make(key, make, fault)
        self._count(read=1)
        with suppress(OSError):  # evicted by another process, or a folder that is only read
            os.utime(self._path(name))
        return entry

    def has(self, key: Key) -> bool:
        """Whether an entry is there. It is not opened."""
        return self._path(key.name).exists()

    def announce(self, items: int, shape: Sequence[int], dtype: str, present: int = 0) -> int:
        """Say what the entries of all items will take on disk before it is spent; returns these bytes.

        present: how many of them are there. Warns where `max_bytes` cannot hold them all. Raises `UserError` where they
        do not fit on the disk.
        """
        total, free = needs(items, shape, dtype), shutil.disk_usage(self._folder).free
        each, new = entry_bytes(shape, dtype), needs(items - present, shape, dtype)
        what = f"media cache {self._folder}: {items:,} entries of {dtype} {list(shape)} take {_size(total)}"
        log.info("%s; %d are there, %s is free on the disk", what, present, _size(free))
        if self._max_bytes is not None and total > self._max_bytes:
            log.warning(
                "%s, but the cache may have %s: about %d of them; the others are made again in every epoch",
                *(what, _size(self._max_bytes), self._max_bytes // each),
            )
            new = min(new, max(0, self._max_bytes - self.used()))
        if new > free:
            raise UserError(
                f"{what}, {_size(new)} of them new, and {_size(free)} is free; make room, use a cache_dir on a larger "
                "disk or bound the cache"
            )
        return total

    def used(self) -> int:
        """Bytes of all entries."""
        with FileLock(self._folder / "bytes.lock"):
            return self._total()

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name}.entry"

    def _count(self, **more: int) -> None:
        with self._guard:
            for name, number in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + number)

    def _look(self, name: str) -> tuple[Entry | None, str]:
        """The entry that is there; or None, and what is wrong with the file if there is one."""
        path = self._path(name)
        try:
            number = path.stat().st_ino
            entry = open_entry(path, verify=self._verified.get(name) != number)
        except FileNotFoundError:
            return None, ""
        except CorruptEntry as error:
            return None, str(error)
        self._remember(name, number, entry)
        return entry, ""

    def _remember(self, name: str, number: int, entry: Entry) -> None:
        with self._guard:
            self._verified[name] = number
            self._open[entry.mapped] = name

    def _make(self, key: Key, make: Callable[[], Mapping[str, Array]], fault: str) -> Entry:
        """Make an entry and put it in its place. fault: what is wrong with the one that is there."""
        name = key.name
        path = self._path(name)
        if fault:
            log.warning("media cache: %s is made again: %s", path, fault)
        arrays = make()
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            size = write_entry(beside, key.facts, arrays)
            entry = open_entry(beside, verify=False)
            number = beside.stat().st_ino
            kept = self._admit(name, beside, size, recount=bool(fault))
        finally:
            beside.unlink(missing_ok=True)  # of an entry that is not kept the bytes stay as long as they are mapped
        if kept:
            self._remember(name, number, entry)
        self._count(made=1, rebuilt=int(bool(fault)), unsaved=int(not kept))
        return entry

    def _admit(self, name: str, beside: Path, size: int, recount: bool) -> bool:
        """Move an entry in and make room for it; False where there is none. recount: a size may have changed."""
        path = self._path(name)
        with FileLock(self._folder / "bytes.lock"):
            before = path.stat().st_size if path.exists() else 0
            total = self._total(recount) - before + size
            recorded = self._folder / "bytes"
            recorded.unlink(missing_ok=True)  # a process that is killed from here on leaves no wrong figure
            if self._max_bytes is not None and total > self._max_bytes >= size:
                total -= self._evict(total - self._max_bytes, name)
            kept = self._max_bytes is None or total <= self._max_bytes
            if kept:
                beside.replace(path)
            recorded.write_text(str(total if kept else total - size + before), encoding="ascii")
        return kept

    def _total(self, recount: bool = False) -> int:
        """Bytes of all entries, counted where no process has written them down. Under the lock of `bytes`."""
        with suppress(FileNotFoundError, ValueError):
            if not recount:
                return int((self._folder / "bytes").read_text(encoding="ascii"))
        return sum(size for _, size, _ in self._entries())

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last use, bytes and path of each entry."""
        for path in self._folder.glob("??/*.entry"):
            with suppress(FileNotFoundError):
                facts = path.stat()
                yield facts.st_mtime, facts.st_size, path

    def _evict(self, excess: int, but: str) -> int:
        """Remove at least `excess` bytes if that can be done; returns how many."""
        removed = 0
        with self._guard:
            kept = {but, *self._open.values()}
        for _, size, path in sorted(self._entries()):
            if removed >= excess:
                break
            if path.stem in kept:
                continue
            path.unlink(missing_ok=True)
            removed += size
            self._count(evicted=1)
        return removed

    def _remove_abandoned(self) -> None:
        for path in self._folder.glob("??/.*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()


def _size(size: float) -> str:
    if size >= 1e8:
        return f"{size / 1e9:,.2f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{math.ceil(size / 1e3)} kB"
