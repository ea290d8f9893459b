"""Reads TensorFlow V2 checkpoints ("tensor bundles") without TensorFlow.

A bundle ``PREFIX`` is ``PREFIX.index``, a LevelDB-style sorted table from tensor names to protocol buffers
that say where each tensor lies, and the shards ``PREFIX.data-00000-of-00001``, ... with the tensors' plain
bytes.

Source of the format: ``tensorflow/core/util/tensor_bundle/tensor_bundle.h``,
``tensorflow/core/protobuf/tensor_bundle.proto`` and LevelDB's ``doc/table_format.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from fieldtune.errors import UserError

_MAGIC = 0xDB4775248B80FB57
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # compression type and masked CRC-32C after each block
_HEADER_KEY = b""
_CRC_CHUNK = 1 << 24

# Numbers of tensorflow/core/framework/types.proto.
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
_OTHER_DTYPES = {4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64", 10: "bool", 14: "bfloat16"}


class BundleError(UserError):
    """The checkpoint's files are missing, cut, changed or of a kind that is not read."""


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies (BundleEntryProto)."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    sliced: bool


@dataclass(frozen=True)
class _Index:
    """The parsed index file: number of shards and the tensors in the order of their names."""

    shards: int
    entries: dict[str, _Entry] = field(default_factory=dict)


def masked_crc32c(*chunks: bytes) -> int:
    """CRC-32C of the joined chunks, masked as LevelDB and TensorFlow store it."""
    crc = 0
    for chunk in chunks:
        crc = google_crc32c.extend(crc, chunk)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint at ``position`` and the position after it. Raises IndexError or ValueError when there is
    none.
    """
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _proto_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of every field of a protocol buffer message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == 0:
            number, position = _varint(data, position)
            yield tag >> 3, number
            continue
        if wire_type == 2:
            length, position = _varint(data, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"protocol buffer wire type {wire_type}")
        value = data[position : position + length]
        if len(value) != length:
            raise ValueError("a protocol buffer field is cut")
        position += length
        yield tag >> 3, value if wire_type == 2 else int.from_bytes(value, "little")


def _scalar(fields: dict[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)  # proto3 leaves out zeros
    if not isinstance(value, int):
        raise ValueError(f"protocol buffer field {number} is not a number")
    return value


def _parse_entry(data: bytes) -> _Entry:
    fields = dict(_proto_fields(data))
    shape: list[int] = []
    message = fields.get(2, b"")
    for number, dimension in _proto_fields(message) if isinstance(message, bytes) else ():
        if number == 2 and isinstance(dimension, bytes):
            shape.append(_scalar(dict(_proto_fields(dimension)), 1))
    dtype, shard, offset, size, crc = (_scalar(fields, number) for number in (1, 3, 4, 5, 6))
    return _Entry(dtype, tuple(shape), shard, offset, size, crc, sliced=7 in fields)


def _unsnappy(data: bytes) -> bytes:
    """Decompress one raw Snappy block (google/snappy, format_description.txt)."""
    expected, position = _varint(data, 0)
    out = bytearray()
    while position < len(data):
        tag = data[position]
        position += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                extra = length - 59
                length = int.from_bytes(data[position : position + extra], "little")
                position += extra
            length += 1
            out += data[position : position + length]
            position += length
            continue
        if tag & 3 == 1:
            length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[position]
            position += 1
        else:
            width = 2 if tag & 3 == 2 else 4
            length, offset = (tag >> 2) + 1, int.from_bytes(data[position : position + width], "little")
            position += width
        if not 0 < offset <= len(out):
            raise ValueError("a Snappy copy reaches before the block")
        for _ in range(length):  # byte by byte, as a copy may overlap what it writes
            out.append(out[-offset])
    if len(out) != expected:
        raise ValueError(f"a Snappy block of {len(out)} bytes, {expected} stated")
    return bytes(out)


def _read_block(table: bytes, handle: bytes) -> bytes:
    """The block that a handle (offset and size as varints) points to, its sum checked, decompressed."""
    offset, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    end = offset + size
    if end + _TRAILER_SIZE > len(table) - _FOOTER_SIZE:
        raise ValueError(f"a block at {offset} reaches beyond the file")
    block, kind = table[offset:end], table[end]
    if masked_crc32c(block, table[end : end + 1]) != int.from_bytes(table[end + 1 : end + 5], "little"):
        raise ValueError(f"the checksum of the block at {offset} does not match")
    if kind not in (0, 1):
        raise ValueError(f"compression type {kind} (block at {offset}); 0 (none) and 1 (Snappy) are read")
    return _unsnappy(block) if kind else block


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every entry of a block; keys share prefixes with the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or end < 0:
        raise ValueError("a block too short for its restart points")
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or position + unshared + length > end:
            raise ValueError("a block entry reaches beyond its block")
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _parse_index(table: bytes) -> _Index:
    if len(table) < _FOOTER_SIZE or int.from_bytes(table[-8:], "little") != _MAGIC:
        raise ValueError("no TensorFlow checkpoint index, or cut (the magic number at its end is missing)")
    footer = table[-_FOOTER_SIZE:]
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    blocks = (_read_block(table, handle) for _, handle in _block_entries(_read_block(table, footer[position:])))
    pairs = {key: value for block in blocks for key, value in _block_entries(block)}
    if _HEADER_KEY not in pairs:
        raise ValueError("the header entry is missing")
    header = dict(_proto_fields(pairs.pop(_HEADER_KEY)))
    if _scalar(header, 2) != 0:
        raise ValueError("big-endian, and only little-endian checkpoints are read")
    return _Index(_scalar(header, 1), {key.decode(): _parse_entry(value) for key, value in pairs.items()})


def _read_index(prefix: Path) -> _Index:
    path = prefix.with_name(prefix.name + ".index")
    try:
        return _parse_index(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"no checkpoint at {prefix}: {path} is missing; fetch it again") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is cut inside a number"
        raise BundleError(f"cannot read {path}: {reason}; delete this file and fetch it again") from error


def _open_shard(prefix: Path, number: int, shards: int, name: str) -> np.ndarray:
    path = prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{shards:05d}")
    if not path.is_file():
        raise BundleError(f"{path} is missing, which holds the tensor {name}; fetch it again")
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, mode="r")


def _tensor(shard: np.ndarray, entry: _Entry, name: str, file: str) -> np.ndarray:
    dtype_name = _DTYPES.get(entry.dtype)
    if dtype_name is None or entry.sliced:
        kind = f"has the type {_OTHER_DTYPES.get(entry.dtype, entry.dtype)}"
        kind = "is stored in slices" if entry.sliced else kind
        allowed = ", ".join(np.dtype(known).name for known in _DTYPES.values())
        raise BundleError(f"the tensor {name} in {file} {kind}; whole tensors of {allowed} are read")
    dtype = np.dtype(dtype_name)
    if math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise BundleError(f"the tensor {name} in {file}: {entry.size} bytes do not fit shape {list(entry.shape)}")
    data = shard[entry.offset : entry.offset + entry.size]
    if len(data) != entry.size:
        raise BundleError(
            f"{file} is cut: the tensor {name} ends at byte {entry.offset + entry.size}, the file at"
            f" {len(shard)}; delete this file and fetch it again"
        )
    chunks = (data[start : start + _CRC_CHUNK].tobytes() for start in range(0, len(data), _CRC_CHUNK))
    if masked_crc32c(*chunks) != entry.crc:
        raise BundleError(
            f"{file} is damaged: the checksum of the tensor {name} does not match; delete this file and fetch it again"
        )
    return data.view(dtype).reshape(entry.shape)


def iter_bundle(prefix: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) for every tensor of the checkpoint ``prefix``, in the order of the names.

    Each array is a read-only view of the mapped file, in the tensor's own shape, not necessarily aligned:
    copy what is to be kept. Every checksum is verified. Types: float16, float32, float64, int32, int64.

    Raises BundleError (a UserError) that names the file and the tensor: missing, cut or damaged files, other
    types.
    """
    index = _read_index(prefix)
    open_shards: dict[int, np.ndarray] = {}
    for name, entry in index.entries.items():
        if entry.shard not in open_shards:
            open_shards[entry.shard] = _open_shard(prefix, entry.shard, index.shards, name)
        file = f"{prefix}.data-{entry.shard:05d}-of-{index.shards:05d}"
        yield name, _tensor(open_shards[entry.shard], entry, name, file)


def read_bundle(prefix: Path) -> dict[str, np.ndarray]:
    """All tensors of the checkpoint ``prefix`` by name, copied into memory. Errors as for `iter_bundle`."""
    return {name: np.array(array) for name, array in iter_bundle(prefix)}
