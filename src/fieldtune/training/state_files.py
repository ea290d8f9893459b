"""How the state of a training becomes a file and comes back: never more copies than needed, never code in it."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fieldtune.errors import UserError


class StateFiles(TorchCheckpointIO):
    """Writes a state straight to its file (Lightning's own makes two more copies of it in memory first).

    A file is read as tensors and plain values only; one that holds more is a `UserError`, and nothing of it is run.
    """

    size = 0  # bytes of the tensors of the last state that was to be written

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.size = _tensor_bytes(checkpoint)
        with Path(path).open("wb") as file:
            writer: Any = _Writer(file)
            try:
                torch.save(checkpoint, writer)
            except RuntimeError:
                if writer.error is not None:  # torch hides a full disk behind an error of its own
                    raise writer.error from None
                raise
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError:  # its own message advises to load the file unsafely
            raise UserError(
                f"{path} is no checkpoint of fieldtune's: its pickle is damaged or holds more than tensors and plain "
                "values. Nothing of it was run; give another run_dir="
            ) from None
        assert isinstance(state, dict)
        return state


class _Writer:
    """What torch.save needs of a file; remembers an error of the disk."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return int(self.file.write(data))
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def random_state() -> dict[str, Any]:
    """The state of every generator that code in this process may draw from, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, [int(key) for key in keys], *rest),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every generator back to a `random_state`; GPUs only if there are as many as then."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def save_safetensors(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors; an error of the disk is an `OSError`."""
    try:
        save_file(state, str(path))
    except SafetensorError as error:  # the number of the system's error stands in its text only
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(_tensor_bytes(item) for item in items)
