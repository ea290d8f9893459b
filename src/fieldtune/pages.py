"""Self-contained HTML pages: the Jinja2 environment, the texts of figures, and writing a page in one piece.

A page needs nothing but its own file: styles are inlined, there are no links, fonts or images from elsewhere, and a
content security policy keeps it so whatever a model's answer contains.
"""

from __future__ import annotations

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

LONG_TEXT = 520  # characters; longer texts are folded behind their beginning
EXCERPT = 260  # characters shown of a folded text
MINUS = "\N{MINUS SIGN}"


@cache
def environment() -> Environment:
    """The Jinja2 environment of our templates: autoescape on, an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("fieldtune", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["long_text"] = LONG_TEXT
    made.filters["figure"] = figure
    made.filters["signed"] = signed
    made.filters["excerpt"] = excerpt
    return made


def render(template: str, **context: Any) -> str:
    """A page from templates/<template>."""
    return environment().get_template(template).render(**context)


def write_page(path: Path, html: str) -> Path:
    """Write a page beside `path` and rename it into place; missing folders are made. Returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Generated text may hold half of a surrogate pair, which UTF-8 cannot encode.
    content = html.encode("utf-8", "replace")
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
    try:
        temporary.write_bytes(content)
        temporary.chmod(0o644)  # temporary files are private; a page is not
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def figure(value: float | None, unit: str) -> str:
    """A value as text: a share as percent, tokens whole, others with three digits or so; None as a dash."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    sign = MINUS if value < 0 else ""
    return sign + _digits(abs(value), unit) + ("%" if unit == "share" else "")


def signed(value: float | None, unit: str) -> str:
    """A difference as text, with its sign; between two shares in percentage points (pp)."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    digits = _digits(abs(value), unit)
    zero = not digits.strip("0.,")
    sign = "" if zero else MINUS if value < 0 else "+"
    return sign + digits + (" pp" if unit == "share" else "")


def _digits(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value * 100:.1f}"
    if unit == "tokens":
        return f"{value:,.0f}"
    if value >= 1e6:
        return f"{value:.2e}"
    decimals = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 10 or unit != "nats" else 3
    return f"{value:,.{decimals}f}"


def excerpt(text: str) -> str:
    """The beginning of a long text, cut at a word."""
    beginning = text[:EXCERPT]
    cut = beginning.rfind(" ")
    return beginning[: cut if cut > EXCERPT // 2 else EXCERPT].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def count_text(value: float) -> str:
    """A count in the reader's size: 960, 4.9 M, 1.56 B."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A time span: 8.4 s, 4 min, 4 min 12 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
