"""Exit codes, and the errors that end a command with one of them."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Any, ClassVar

from ksi_daemon.errors import KsiError


class Exit(IntEnum):
    """What the exit code of `ksi-migrate` means; docs/commands.md prints this table."""

    DONE = 0
    FINDING = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INCONCLUSIVE = 5
    LOCKED = 6
    FAULT = 70


class CommandError(KsiError):
    """An error that ends a command: its exit code, its stable code, and what to do about it."""

    exit: ClassVar[Exit] = Exit.FAULT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Finding(CommandError):
    """Something is wrong that the command was asked to look for."""

    code = "finding"
    exit = Exit.FINDING


class NotAcknowledged(CommandError):
    """The daemon is not reachable, or did not acknowledge in time; what was recorded stays recorded."""

    code = "not_acknowledged"
    exit = Exit.UNREACHABLE


class Refused(CommandError):
    """A closed gate, an illegal step, invalid flags, a component that is not built."""

    code = "refused"
    exit = Exit.REFUSED


class Inconclusive(CommandError):
    """Not enough samples or no evidence; neither yes nor no."""

    code = "inconclusive"
    exit = Exit.INCONCLUSIVE


class Locked(CommandError):
    """Another `ksi-migrate` is changing things."""

    code = "locked"
    exit = Exit.LOCKED


SCHEMA_VERSION = 1


def document(command: str, *, ok: bool, **body: Any) -> dict[str, Any]:
    """The frame of every `--json` document."""
    return {"schema_version": SCHEMA_VERSION, "command": command, "ok": ok, **body}


def told(error: Exception) -> str:
    """An error in our own words; an `OSError` names the file that was meant, never our temp file."""
    if not isinstance(error, OSError):
        return str(error)
    where = str(error.filename2 or error.filename or "")
    if where.endswith(".tmp"):
        where = os.path.dirname(where)
    return ": ".join(part for part in ((error.strerror or str(error)).lower(), where) if part)
