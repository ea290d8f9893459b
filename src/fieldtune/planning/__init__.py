"""What a run will take, said before anything is loaded: memory by part, steps, tokens, time, money."""

from __future__ import annotations

from fieldtune.planning.text import line as line
