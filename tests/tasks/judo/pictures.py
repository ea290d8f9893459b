"""Folders of small PNG pictures, no two alike."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def png(number: int) -> bytes:
    """A PNG of 8 by 8 gray pixels made of a number."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + bytes((number * 37 + row * 11 + column) % 256 for column in range(8)) for row in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    pixels += struct.pack(">I", number)  # readers ignore what follows the last row
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def write_frame(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(number))
    return path


def write_folder(folder: Path, techniques: tuple[str, ...], performers: int = 5, each: int = 2, first: int = 0) -> Path:
    """`FOLDER/<technique>/p<performer>__<number>.png`."""
    number = first
    for technique in techniques:
        for performer in range(performers):
            for frame in range(each):
                write_frame(folder / technique / f"p{performer}__{frame:03d}.png", number)
                number += 1
    return folder
