"""KEY=VALUE words of a command: its own, and those of the configuration beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from fieldtune.config import Config
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


def words_of_configuration(arguments: Sequence[str], own: Mapping[str, str]) -> list[str]:
    """The words that are not the command's own; `UserError` for a slip in one."""
    words = [word for word in arguments if word.partition("=")[0] not in own]
    for word in words:
        _no_slip(word, own)
    return words


def _no_slip(word: str, own: Mapping[str, str]) -> None:
    """`UserError` for a flag, and for a word that is nearer to one of the command's own than to the configuration's."""
    key = word.partition("=")[0].lstrip("+~")
    top_level = [item.name for item in fields(Config)] + ["experiment"]
    hint = nearest(key, [*own, *top_level]) if key.isidentifier() and key not in top_level else ""
    if word.startswith("-"):
        raise UserError(f"{word} is not understood; give words of train.py, and {'=... '.join(own)}=...")
    if any(f" {name}?" in hint for name in own):
        raise UserError(f"{word} is not understood{hint}")


def must_name_a_model(options: Mapping[str, str]) -> None:
    """`UserError` for a `system` or `device` that there is not."""
    if options["system"] not in ("tuned", "base"):
        raise UserError(f"system={options['system']} is not a model; allowed: tuned, base")
    if options["device"] not in ("cpu", "gpu"):
        raise UserError(f"device={options['device']} is not a device; allowed: cpu, gpu")
