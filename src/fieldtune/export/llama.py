"""A GGUF file asked by llama.cpp's library, the engine of Ollama: token ids, logits, greedy answers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH = 512  # tokens a pass


class Llama:
    """A loaded GGUF file; use as a context manager. context: tokens of a prompt and its answer at most."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        import llama_cpp

        self._low = llama_cpp.llama_cpp
        settings = {"n_ctx": context, "n_batch": BATCH, "n_threads": threads, "n_threads_batch": threads}
        self._model: Any = llama_cpp.Llama(model_path=str(path), n_gpu_layers=0, verbose=False, **settings)
        self.width = int(self._model.n_vocab())

    def __enter__(self) -> Llama:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.close()

    def tokenize(self, text: str) -> list[int]:
        """As a server does it: the begin token where the file says so, texts of special tokens as these."""
        return list(self._model.tokenize(text.encode("utf-8"), add_bos=True, special=True))

    def logits(self, ids: Sequence[int], places: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits after each of some positions [places, vocabulary]."""
        self._forget()
        wanted = set(places)
        parts = [
            self._pass(ids[first : first + BATCH], first, {place - first for place in wanted})
            for first in range(0, len(ids), BATCH)
        ]
        return np.concatenate(parts)

    def answer(self, ids: Sequence[int], most: int, stops: frozenset[int]) -> list[int]:
        """Greedy tokens after a prompt, up to one at which answers end."""
        last = self.logits(ids, [len(ids) - 1])[-1]
        found: list[int] = []
        while len(found) < most and (token := int(last.argmax())) not in stops:
            found.append(token)
            last = self._pass([token], len(ids) + len(found) - 1, {0})[-1]
        return found

    def _forget(self) -> None:
        self._low.llama_memory_clear(self._low.llama_get_memory(self._model.ctx), True)

    def _pass(self, ids: Sequence[int], first: int, wanted: set[int]) -> npt.NDArray[np.float32]:
        batch = self._low.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for number, token in enumerate(ids):
                batch.token[number], batch.pos[number] = token, first + number
                batch.n_seq_id[number], batch.seq_id[number][0] = 1, 0
                batch.logits[number] = number in wanted
            if self._low.llama_decode(self._model.ctx, batch):
                raise RuntimeError("llama.cpp could not compute a pass; its context may be too short")
            rows = [self._row(number) for number in range(len(ids)) if number in wanted]
        finally:
            self._low.llama_batch_free(batch)
        return np.stack(rows) if rows else np.zeros((0, self.width), dtype=np.float32)

    def _row(self, number: int) -> npt.NDArray[np.float32]:
        pointer = self._low.llama_get_logits_ith(self._model.ctx, number)
        address = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(address, shape=(self.width,)).copy()
