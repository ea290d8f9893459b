"""Errors a person can mend: every message says what was given, what is allowed and what to do."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. Commands print its message without a traceback and exit with status 2."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration is wrong. Carries every problem found, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
