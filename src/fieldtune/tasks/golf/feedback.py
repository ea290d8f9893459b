"""Users' feedback on swings: a JSON Lines file that grows in use and joins the next data set.

A line: {"swing": {area, score, target, scores, swing_type}, "feedback": "text that the user wrote or approved",
"rating": 1 to 5 (optional), "user": "name" (optional)}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fieldtune.errors import UserError
from fieldtune.records import Example, Message, Rejected, dump_line
from fieldtune.tasks.golf.config import Data
from fieldtune.tasks.golf.swing import Swing, severity, swing_prompt

SOURCE = "feedback"
LEAST_RATING = 4
LONGEST = 20_000  # characters of one feedback text
SHOWN = 500  # characters of a refused line that are kept


def append_feedback(
    path: Path, swing: Swing, feedback: str, *, rating: int | None = None, user: str | None = None
) -> None:
    """Add one line, in one write: programs that append to the same file at once do not mix their lines.

    Raises UserError for an empty or endless text, a rating that is not 1 to 5, or a file that cannot be written.
    """
    row: dict[str, Any] = {"swing": swing.to_json(), "feedback": feedback}
    row |= {key: value for key, value in (("rating", rating), ("user", user)) if value is not None}
    checked_row(row)
    line = dump_line(row).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":  # a hand-edited last line without its end
                line = b"\n" + line
            if os.write(file, line) != len(line):
                raise UserError(f"{path}: the line was written in part only; is the disk full?")
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(f"{path}: feedback cannot be written ({error.strerror})") from None


def read_feedback(path: Path, data: Data) -> Iterator[Example | Rejected]:
    """The well rated lines as examples in the form of `data`, the rest as `Rejected`.

    Raises UserError if the file cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"data.feedback={path} cannot be read ({error.strerror}); give a JSON Lines file") from None
    with file:
        for number, raw in enumerate(file, 1):
            if raw.strip():
                yield _row(path, number, raw, data)


def _row(path: Path, number: int, raw: bytes, data: Data) -> Example | Rejected:
    text = raw.decode("utf-8", "replace").strip()
    try:
        row = json.loads(raw.decode("utf-8-sig"))
        swing = checked_row(row)
    except UnicodeDecodeError:
        return Rejected(str(path), number, "not UTF-8 text", text[:SHOWN])
    except (json.JSONDecodeError, RecursionError) as error:
        return Rejected(str(path), number, f"not JSON ({getattr(error, 'msg', 'nested too deep')})", text[:SHOWN])
    except UserError as error:
        return Rejected(str(path), number, str(error), text[:SHOWN])
    rating, user = row.get("rating"), row.get("user")
    if rating is not None and rating < LEAST_RATING:
        reason = f"rating {rating}: only feedback rated {LEAST_RATING} or 5, or not rated, is learned from"
        return Rejected(str(path), number, reason, text[:SHOWN])
    name = f"{SOURCE}-{number:06d}"
    turns = (
        Message("user", swing_prompt(swing, data.form, wording=number)),
        Message("assistant", (row["feedback"].strip(),)),
    )
    return Example(name, turns, SOURCE, f"{SOURCE}-user-{user}" if user else name, swing_facts(swing, data))


def swing_facts(swing: Swing, data: Data) -> dict[str, Any]:
    """What scoring and the breakdowns need to know of a row; `knowledge` only where it is not the shipped one."""
    facts = {
        "area": swing.area,
        "band": severity(swing.score),
        "score": swing.score,
        "target": swing.target,
        "swing_type": swing.swing_type,
        "form": data.form.name,
    }
    if data.knowledge is not None:
        facts["knowledge"] = data.knowledge
    return facts


def checked_row(row: Any) -> Swing:
    """The swing of a feedback row; UserError says what is wrong with the row."""
    if not isinstance(row, dict) or "swing" not in row or "feedback" not in row:
        raise UserError("a feedback line is an object with 'swing' and 'feedback'")
    swing = Swing.from_mapping(row["swing"])
    feedback, rating, user = row["feedback"], row.get("rating"), row.get("user")
    if not isinstance(feedback, str) or not feedback.strip():
        raise UserError("feedback is empty or not a text; give what the user wrote or approved")
    if len(feedback) > LONGEST:
        raise UserError(f"feedback has {len(feedback):,} characters; at most {LONGEST:,}")
    if rating is not None and (isinstance(rating, bool) or not isinstance(rating, int) or not 1 <= rating <= 5):
        raise UserError(f"rating is {rating!r}; give a whole number from 1 to 5, or none")
    if user is not None and not isinstance(user, str):
        raise UserError(f"user is {user!r}; give a text, or none")
    try:
        f"{feedback}{user}".encode()
    except UnicodeEncodeError:
        raise UserError("feedback holds half of a character pair (a lone surrogate); give valid Unicode") from None
    return swing
