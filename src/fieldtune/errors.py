"""Errors a person can mend: every message says what was given, what is allowed and what to do."""

from __future__ import annotations

import errno

# What the disk or the system refuses, a fault of neither the input nor the program, and what to do about it.
REFUSALS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "raise the largest size of a file (ulimit -f)",
    errno.EACCES: "make the folder writable for this user",
    errno.EPERM: "make the folder writable for this user",
    errno.EROFS: "make the file system writable",
}


class UserError(Exception):
    """Bad input. Commands print its message without a traceback and exit with status 2."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration is wrong. Carries every problem found, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
