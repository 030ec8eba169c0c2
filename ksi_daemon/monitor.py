"""`ksi-daemon monitor`: tells a claude session, through the daemon, what completions come to."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.claude_cli.core import injection, is_session
from ksi_daemon.client import Client, Unreachable
from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksi_daemon.settings import Settings

EVENTS: Final = ("completion:progress", "completion:result", "completion:error", "completion:cancelled")
"""The frames that are passed on: all that the original's subscription brought it."""

_GRACE = 30.0
"""Seconds for the daemon's reply beyond the deadline of a turn."""


class NoSession(KsiError):
    """The directory has no claude session to tell anything to."""

    code = "not_found"

    def __init__(self, directory: Path, place: Path) -> None:
        super().__init__(
            f"no claude session of {directory} in {place}; start claude there once, or give --directory"
        )


@dataclass(frozen=True, slots=True)
class Passed:
    """One frame passed on: to which session, and the first of what it answered, or the error."""

    event: str
    session: str
    ok: bool
    text: str


def projects(home: Path | None = None) -> Path:
    """Where the claude command keeps its sessions: CLAUDE_CONFIG_DIR, else `~/.claude`, then `projects`."""
    place = os.environ.get("CLAUDE_CONFIG_DIR")
    return (Path(place) if place else (home or Path.home()) / ".claude") / "projects"


def newest_session(directory: Path, place: Path) -> str:
    """The session of `directory` that was written last. Raises `NoSession`.

    The command keeps a session in a folder named like its directory with every other character than ASCII
    letters and digits as `-`. What is not named by a UUID there is no session of its own.
    """
    folder = place / re.sub(r"[^A-Za-z0-9]", "-", str(directory))
    found = [(_written(path), path.stem) for path in folder.glob("*.jsonl") if is_session(path.stem)]
    if not found:
        raise NoSession(directory, folder)
    return max(found)[1]


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def watch(settings: Settings, directory: Path, place: Path) -> Iterator[Passed]:
    """Pass on each completion frame until the daemon hangs up. Raises `NoSession`, `Unreachable`.

    Frames come on one connection and are passed on over another: a turn takes long, and none may be missed.
    """
    session = newest_session(directory, place)
    patience = settings.claude_progress_timeout + _GRACE
    with Client(settings.socket_path) as frames, Client(settings.socket_path, patience) as daemon:
        for frame in frames.frames():
            if frame.get("event") not in EVENTS:
                continue
            passed = _pass_on(daemon, frame, session, directory)
            yield passed
            if not passed.ok:  # it may be another one by now
                session = newest_session(directory, place)


def _pass_on(daemon: Client, frame: dict[str, Any], session: str, directory: Path) -> Passed:
    found = frame.get("data")
    data = found if isinstance(found, dict) else {}
    message = injection(data, datetime.now().astimezone())
    reply = daemon.request(
        "claude_cli:inject", {"session_id": session, "cwd": str(directory), "message": message}
    )
    told = reply.get("data")
    answer: dict[str, Any] = told if isinstance(told, dict) else reply
    if reply.get("code") == "shutting_down":
        raise Unreachable(Path(str(directory)), "it is stopping")
    error = answer.get("error")
    return Passed(str(frame["event"]), session, error is None, str(error or answer.get("output", "")))
