"""One entry of the media cache: one file with a header and named arrays, mapped into memory when it is read.

    8 bytes   FTMEDIA1
    8 bytes   length of the header, little-endian, as the following numbers
    4 bytes   CRC-32 of the header
    4 bytes   zero
    header    JSON in UTF-8: {"facts", "arrays": [{"name", "dtype", "shape", "offset", "bytes"}], "bytes", "crc32"}
    zeros     to the next multiple of 4,096
    arrays    raw, C order, little-endian, each at a multiple of 64 from the first

`offset` counts from the first array; `bytes` of the entry and its `crc32` are those of all arrays with the zeros in
between. numpy has no bfloat16, so such an array is its 16 bits as uint16, and its dtype says "bfloat16".
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

MAGIC = b"FTMEDIA1"
PREFIX = struct.Struct("<8sQII")
PAGE, ALIGNED = 4096, 64  # bytes
BFLOAT16 = "bfloat16"
DTYPES = ("bool", "uint8", "int32", "int64", "float16", BFLOAT16, "float32")


class CorruptEntry(Exception):
    """A file is no whole entry; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Bfloat16:
    """bfloat16 values as their 16 bits."""

    bits: NDArray[np.uint16]


Array = NDArray[Any] | Bfloat16


@dataclass(frozen=True, slots=True)
class Entry:
    """Named arrays, read-only and mapped from the file; of bfloat16 the bits. dtypes: of each. facts: what they are."""

    arrays: Mapping[str, NDArray[Any]]
    dtypes: Mapping[str, str]
    facts: Mapping[str, Any]
    mapped: mmap.mmap  # lives as long as any of the arrays

    def tensor(self, name: str) -> torch.Tensor:
        """An array copied into a tensor of its dtype."""
        import torch

        array = torch.from_numpy(np.array(self.arrays[name]))
        return array.view(torch.bfloat16) if self.dtypes[name] == BFLOAT16 else array


def storable(tensor: torch.Tensor) -> Array:
    """A tensor's values in the form that an entry takes."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return Bfloat16(tensor.view(torch.int16).numpy().view(np.uint16))
    return np.asarray(tensor.numpy())


def entry_bytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of the file of an entry of one array whose facts fit on the first page."""
    return PAGE + _up(math.prod(shape) * _numpy_type(dtype).itemsize, ALIGNED)


def write_entry(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    """Write an entry; returns its bytes. ValueError for a dtype that is not one of `DTYPES`."""
    described, end, crc = list[dict[str, Any]](), 0, 0
    blocks: list[bytes | memoryview] = []
    for name, array in arrays.items():
        values = array.bits if isinstance(array, Bfloat16) else array
        dtype = BFLOAT16 if isinstance(array, Bfloat16) else values.dtype.name
        block = np.ascontiguousarray(values, dtype=_numpy_type(dtype)).reshape(-1).view(np.uint8)
        padding = bytes(_up(block.nbytes, ALIGNED) - block.nbytes)
        crc = zlib.crc32(padding, zlib.crc32(block.data, crc))
        blocks += [block.data, padding]
        described.append(
            {"name": name, "dtype": dtype, "shape": list(values.shape), "offset": end, "bytes": block.nbytes}
        )
        end += block.nbytes + len(padding)
    header = json.dumps({"facts": facts, "arrays": described, "bytes": end, "crc32": crc}).encode()
    start = _up(PREFIX.size + len(header), PAGE)
    with path.open("wb") as file:
        file.write(PREFIX.pack(MAGIC, len(header), zlib.crc32(header), 0) + header)
        file.write(bytes(start - PREFIX.size - len(header)))
        for part in blocks:
            file.write(part)
    return start + end


def open_entry(path: Path, verify: bool) -> Entry:
    """Map an entry. verify: compare the sum of its arrays, which reads them all; that of the header is always compared.

    Raises `CorruptEntry`, and OSError for a file that cannot be opened.
    """
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise CorruptEntry("the file is empty") from None
    header, start = _header(mapped)
    if len(mapped) != start + header["bytes"]:
        raise CorruptEntry(f"it is {len(mapped):,} bytes long, not {start + header['bytes']:,}")
    if verify:
        with memoryview(mapped) as view, view[start:] as data:
            if zlib.crc32(data) != header["crc32"]:
                raise CorruptEntry("its arrays do not have the sum that was written")
    arrays = {item["name"]: _array(mapped, start, item) for item in header["arrays"]}
    dtypes = {item["name"]: str(item["dtype"]) for item in header["arrays"]}
    return Entry(arrays, dtypes, header["facts"], mapped)


def _header(mapped: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header, and where the arrays begin."""
    if len(mapped) < PREFIX.size:
        raise CorruptEntry("it is shorter than its beginning")
    magic, length, crc, _ = PREFIX.unpack(mapped[: PREFIX.size])
    if magic != MAGIC:
        raise CorruptEntry("it does not begin like an entry")
    text = mapped[PREFIX.size : PREFIX.size + length]
    if len(text) != length or zlib.crc32(text) != crc:
        raise CorruptEntry("its header does not have the sum that was written")
    header: dict[str, Any] = json.loads(text)
    return header, _up(PREFIX.size + length, PAGE)


def _array(mapped: mmap.mmap, start: int, item: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape = _numpy_type(item["dtype"]), tuple(item["shape"])
    if not item["bytes"]:
        return np.zeros(shape, dtype=dtype)
    return np.frombuffer(mapped, dtype, math.prod(shape), start + item["offset"]).reshape(shape)


def _numpy_type(dtype: str) -> np.dtype[Any]:
    if dtype not in DTYPES:
        raise ValueError(f"an entry cannot hold {dtype}; allowed: {', '.join(DTYPES)}")
    return np.dtype("uint16" if dtype == BFLOAT16 else dtype).newbyteorder("<")


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
