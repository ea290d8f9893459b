"""KEY=VALUE words of a command that is not the configuration's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fieldtune.errors import UserError
from fieldtune.keys import nearest


def options_of(arguments: Sequence[str], known: Mapping[str, str | None]) -> dict[str, str]:
    """KEY=VALUE words as a mapping; a known key without a default must be given."""
    given: dict[str, str] = {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            raise UserError(f"{word} is not understood{nearest(key, list(known))}; give {'=... '.join(known)}=...")
        given[key] = value
    missing = [key for key, default in known.items() if default is None and not given.get(key)]
    if missing:
        raise UserError(f"{missing[0]}= is missing; give {' '.join(f'{key}=...' for key in missing)}")
    return {key: given.get(key, default or "") for key, default in known.items()}


def whole_number(options: Mapping[str, str], key: str, least: int, most: int) -> int:
    """The value of a word as a whole number within bounds; `UserError` if it is none."""
    text = options[key]
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise UserError(f"{key}={text} is not allowed; give a whole number from {least:,} to {most:,}")
    return int(text)
