"""Where the files that come with fieldtune lie: in a checkout beside `src`, in a wheel inside the package."""

from __future__ import annotations

from pathlib import Path


def resource(name: str) -> Path:
    """Path of a shipped folder or file, as in `conf` or `knowledge/golf_instruction`."""
    package = Path(__file__).resolve().parent
    inside = package / "_resources" / name
    return inside if inside.exists() else package.parents[1] / name
