"""What `fieldtune validate` knows of golf: lines of users' feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fieldtune.errors import UserError
from fieldtune.tasks.golf.feedback import checked_row


def problems(raw: Mapping[str, Any]) -> Sequence[tuple[str, str]] | None:
    """What is wrong with a line of feedback; None for another object."""
    if "swing" not in raw:
        return None
    try:
        checked_row(dict(raw))
    except UserError as error:
        return [("", str(error))]
    return []
