"""How a command ends: its exit code, and what is said, for a report, for an error and for our own fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from ksi_daemon.client import Unreachable
from ksi_daemon.errors import KsiError, SettingInvalid
from ksi_daemon.flags import FlagsInvalid
from ksi_daemon.stages import StagesInvalid
from ksi_migrate import render
from ksi_migrate.exits import CommandError, Exit
from ksi_migrate.flagfile import LockHeld


class Report(Protocol):
    """What every command's `run` returns."""

    @property
    def exit_code(self) -> Exit:
        """How the command ends."""

    def document(self) -> dict[str, Any]:
        """Its `--json` body."""


Work = Callable[[], Report]
FOREIGN: Final[tuple[tuple[type[KsiError], Exit, str], ...]] = (
    (LockHeld, Exit.LOCKED, "another ksi-migrate is at work; run this again when it has ended"),
    (SettingInvalid, Exit.USAGE, "mend it in the environment or in .env"),
    (FlagsInvalid, Exit.REFUSED, "ksi-migrate flags validate checks it"),
    (StagesInvalid, Exit.REFUSED, "ksi-migrate rollback mends damaged ceilings"),
    (Unreachable, Exit.UNREACHABLE, "start one with ksi-daemon start"),
)
"""The daemon's own errors that a command lets pass, and how it ends with them."""


def end(command: str, work: Work, *, as_json: bool, as_markdown: bool = False) -> Exit:
    """Do the work, print what came of it, give the exit code. Only what is no `KsiError` passes through."""
    try:
        report = work()
    except KsiError as error:
        code, hint = judged(error)
        said = {"code": error.code, "message": str(error), "hint": hint}
        render.fail(command, said, as_json=as_json)
        return code
    render.show(report.document(), as_json=as_json, as_markdown=as_markdown)
    return report.exit_code


def judged(error: KsiError) -> tuple[Exit, str]:
    """The exit code and the hint of an error; one that nobody foresaw is our own fault."""
    if isinstance(error, CommandError):
        return error.exit, error.hint
    found = (row[1:] for row in FOREIGN if isinstance(error, row[0]))
    return next(found, (Exit.FAULT, "this is a fault of ksi-migrate; please report it"))


def wrong_usage(command: str, message: str) -> Exit:
    """The document for a command line that the parser refused."""
    said = {"code": "usage", "message": message, "hint": "ksi-migrate --help shows every command and option"}
    render.fail(command, said, as_json=True)
    return Exit.USAGE


def fault(command: str, error: BaseException, *, as_json: bool) -> Exit:
    """Our own fault: one clear line, and exit 70, never the 1 of a finding."""
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    hint = "this is a fault of ksi-migrate; KSI_TRACEBACK=1 shows where"
    render.fail(command, {"code": "fault", "message": text, "hint": hint}, as_json=as_json)
    return Exit.FAULT


def asked(arguments: Sequence[str]) -> tuple[str, bool]:
    """The command's name and whether JSON was asked for, for errors that come before or beside the parser."""
    words = [word for word in arguments if not word.startswith("-")]
    command = " ".join(words[: 2 if words[:1] == ["flags"] else 1])
    return command or "ksi-migrate", "--json" in arguments
