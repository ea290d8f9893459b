from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from fieldtune.errors import UserError
from fieldtune.models.tf_bundle import iter_bundle, read_bundle

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19, "bool": 10}
RNG = np.random.default_rng(0)
TENSORS: dict[str, np.ndarray] = {
    f"model/h{i}/attn/{kind}": RNG.standard_normal(shape, dtype=np.float32)
    for i in range(12)
    for kind, shape in (("b", (5,)), ("w", (1, 3, 5)))
} | {
    "counts": np.arange(7, dtype=np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "half": np.array([[1.5, -2.0]], np.float16),
    "scalar": np.array(3.25),
    "step": np.array([-4], np.int32),
}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def masked(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def message(fields: Sequence[tuple[int, int | bytes]]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif number == 6:
            out += varint(number << 3 | 5) + value.to_bytes(4, "little")
        elif value:
            out += varint(number << 3) + varint(value)
    return out


def snappy(block: bytes) -> bytes:
    """A plain Snappy compressor: the latest earlier occurrence of four bytes is copied, overlaps included."""
    out, literal, position = varint(len(block)), b"", 0
    latest: dict[bytes, int] = {}

    def flush(literal: bytes) -> bytes:
        if not literal:
            return b""
        size = len(literal) - 1
        return (bytes([size << 2]) if size < 60 else bytes([61 << 2, size & 255, size >> 8])) + literal

    while position < len(block):
        start = latest.get(block[position : position + 4])
        latest[block[position : position + 4]] = position
        if start is None or len(block) - position < 4:
            literal += block[position : position + 1]
            position += 1
            continue
        length, offset = 4, position - start
        while length < 64 and position + length < len(block) and block[start + length] == block[position + length]:
            length += 1
        out, literal = out + flush(literal), b""
        if length < 12 and offset < 2048:
            out += bytes([offset >> 8 << 5 | length - 4 << 2 | 1, offset & 255])
        elif offset < 65536 and position % 2:
            out += bytes([length - 1 << 2 | 2]) + offset.to_bytes(2, "little")
        else:
            out += bytes([length - 1 << 2 | 3]) + offset.to_bytes(4, "little")
        position += length
    return out + flush(literal)


class TableWriter:
    """Writes the sorted table; small blocks and restart intervals make short tables have many of both."""

    def __init__(self, block_size: int, compressed: bool) -> None:
        self.block_size, self.compressed, self.file = block_size, compressed, b""

    def block(self, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Append a block; its handle."""
        out, restarts, before = b"", [], b""
        for number, (key, value) in enumerate(pairs):
            shared = 0
            if number % 3 == 0:
                restarts.append(len(out))
            else:
                while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                    shared += 1
            out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            before = key
        for number in [*(restarts or [0]), len(restarts) or 1]:
            out += number.to_bytes(4, "little")
        out = snappy(out) if self.compressed else out
        kind = bytes([self.compressed])
        handle = varint(len(self.file)) + varint(len(out))
        self.file += out + kind + masked(out + kind).to_bytes(4, "little")
        return handle

    def table(self, pairs: Mapping[bytes, bytes]) -> bytes:
        index: list[tuple[bytes, bytes]] = []
        pending: list[tuple[bytes, bytes]] = []
        for pair in sorted(pairs.items()):
            pending.append(pair)
            if sum(len(key) + len(value) for key, value in pending) >= self.block_size:
                index.append((pair[0], self.block(pending)))
                pending = []
        if pending:
            index.append((pending[-1][0] + b"\xff", self.block(pending)))
        handles = self.block([]) + self.block(index)
        return self.file + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    shards: int = 1,
    block_size: int = 100,
    compressed: bool = False,
    endianness: int = 0,
) -> None:
    data = [b""] * shards
    pairs = {b"": message([(1, shards), (2, endianness), (3, message([(1, 1)]))])}
    for number, name in enumerate(sorted(tensors)):
        array, shard = tensors[name], number % shards
        content = array.tobytes()
        shape = b"".join(message([(2, message([(1, size)]))]) for size in array.shape)
        entry: list[tuple[int, int | bytes]] = [(1, DTYPES[array.dtype.name]), (2, shape), (3, shard)]
        entry += [(4, len(data[shard])), (5, len(content)), (6, masked(content))]
        pairs[name.encode()] = message(entry)
        data[shard] += content
    index = TableWriter(block_size, compressed).table(pairs)
    prefix.with_name(prefix.name + ".index").write_bytes(index)
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("block_size", [1, 100, 10_000])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_was_written_is_read(tmp_path: Path, shards: int, block_size: int, compressed: bool) -> None:
    prefix = tmp_path / "model.ckpt"
    write_bundle(prefix, TENSORS, shards=shards, block_size=block_size, compressed=compressed)
    read = read_bundle(prefix)
    assert list(read) == sorted(TENSORS)
    for name, array in TENSORS.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert np.array_equal(read[name], array)


def test_a_compressed_index_is_smaller_and_read_alike(tmp_path: Path) -> None:
    names = ["a" * 300, "layer/" * 20 + "w", "".join(chr(33 + i * 7 % 90) for i in range(90)) + "b" * 40]
    tensors = {name: np.arange(3, dtype=np.float32) + len(name) for name in names}
    write_bundle(tmp_path / "plain", tensors, block_size=10_000)
    write_bundle(tmp_path / "m", tensors, block_size=10_000, compressed=True)
    assert (tmp_path / "m.index").stat().st_size < (tmp_path / "plain.index").stat().st_size * 3 / 4
    read = read_bundle(tmp_path / "m")
    assert all(np.array_equal(read[name], array) for name, array in tensors.items())


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", {"w": np.ones((2, 2), np.float32)})
    [(name, array)] = iter_bundle(tmp_path / "m")
    assert name == "w"
    assert not array.flags.owndata
    assert not array.flags.writeable


def change(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


INDEX, DATA = "m.index", "m.data-00000-of-00001"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda d: change(d / INDEX, 20), r"m\.index: the checksum of the block at \d+ does not match"),
        (lambda d: change(d / INDEX, -1), r"m\.index: no TensorFlow checkpoint index"),
        (lambda d: change(d / DATA, 9), r"00001 is damaged: the checksum of the tensor counts"),
        (lambda d: change(d / DATA, -1), r"00001 is damaged: the checksum of the tensor step"),
        (lambda d: (d / DATA).write_bytes((d / DATA).read_bytes()[:-2]), "is cut: the tensor step"),
        (lambda d: (d / DATA).write_bytes(b""), "is cut: the tensor counts"),
        (lambda d: (d / INDEX).write_bytes((d / INDEX).read_bytes()[:-60]), "or cut"),
        (lambda d: (d / INDEX).write_bytes((d / INDEX).read_bytes()[200:]), r"m\.index"),
        (lambda d: (d / INDEX).write_bytes(b""), "or cut"),
        (lambda d: (d / DATA).unlink(), "00001 is missing, which holds the tensor counts"),
        (lambda d: (d / INDEX).unlink(), r"m\.index is missing"),
        (lambda d: write_bundle(d / "m", TENSORS, endianness=1), "big-endian"),
        (
            lambda d: write_bundle(d / "m", {"flag": np.array([True])}),
            "flag .* has the type bool; .* float32",
        ),
    ],
)
def test_spoiled_files_are_told_in_one_line(tmp_path: Path, spoil: Callable[[Path], object], told: str) -> None:
    write_bundle(tmp_path / "m", TENSORS)
    spoil(tmp_path)
    with pytest.raises(UserError, match=told) as caught:
        read_bundle(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_any_flipped_byte_of_the_index_is_an_error_or_harmless(tmp_path: Path) -> None:
    tensors = {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}
    write_bundle(tmp_path / "m", tensors)
    whole = (tmp_path / INDEX).read_bytes()
    for position in range(len(whole)):
        (tmp_path / INDEX).write_bytes(whole)
        change(tmp_path / INDEX, position)
        try:
            read = read_bundle(tmp_path / "m")
        except UserError:
            continue
        assert all(np.array_equal(read[name], array) for name, array in tensors.items())
