"""FIT files made by hand, from the protocol's description: a header, definitions, data and a checksum."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

EPOCH = datetime(1989, 12, 31, tzinfo=UTC)
SPORTS = {"running": 1, "cycling": 2, "swimming": 5}
_NIBBLES = (
    *(0x0000, 0xCC01, 0xD801, 0x1400, 0xF001, 0x3C00, 0x2800, 0xE401),
    *(0xA001, 0x6C00, 0x7800, 0xB401, 0x5000, 0x9C01, 0x8801, 0x4400),
)


def checksum(data: bytes) -> int:
    """The protocol's CRC-16."""
    crc = 0
    for byte in data:
        for nibble in (byte & 0xF, byte >> 4):
            crc = (crc >> 4) & 0x0FFF ^ _NIBBLES[crc & 0xF] ^ _NIBBLES[nibble]
    return crc


def write_fit(
    path: Path, start: datetime, sport: str, watts: Sequence[int], beats: Sequence[int], pause: int = 0
) -> Path:
    """An activity with one sample a second. pause: seconds without samples after the first half."""
    began = int((start - EPOCH).total_seconds())
    body = struct.pack("<BBBHB3B", 0x40, 0, 0, 0, 1, 0, 1, 0x00) + struct.pack("<BB", 0, 4)  # file_id: activity
    body += struct.pack("<BBBHB", 0x41, 0, 0, 20, 3) + bytes([253, 4, 0x86, 7, 2, 0x84, 3, 1, 0x02])
    for number, (power, heart) in enumerate(zip(watts, beats, strict=True)):
        later = pause if number >= len(watts) // 2 else 0
        body += struct.pack("<BIHB", 1, began + number + later, power, heart)
    body += struct.pack("<BBBHB", 0x42, 0, 0, 18, 4) + bytes([253, 4, 0x86, 2, 4, 0x86, 8, 4, 0x86, 5, 1, 0x00])
    body += struct.pack("<BIIIB", 2, began + len(watts) + pause, began, len(watts) * 1000, SPORTS[sport])
    head = struct.pack("<BBHI4s", 14, 0x20, 2132, len(body), b".FIT")
    whole = head + struct.pack("<H", checksum(head)) + body
    path.write_bytes(whole + struct.pack("<H", checksum(whole)))
    return path
