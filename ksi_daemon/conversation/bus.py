"""Which conversations the end of the bus's log tells of. Both sides read it so. Blocks."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.conversation.core import BUS, decode, plain
from ksi_daemon.conversation.logfile import is_absent, log_of, opened
from ksi_daemon.conversation.messages import bus_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ksi_daemon.conversation.messages import Message

LINE = 200
"""Bytes that a line is taken to have, as in the original, to know how much of the end to read."""

MOST_LINES = 100_000
"""Lines of the bus's log that one request may look at."""


def active(folder: str, count: int, since: float) -> bytes | None:
    """The reply as JSON; None without a log. Raises `OSError`."""
    try:
        with opened(log_of(folder, BUS)) as fd:
            size = os.fstat(fd).st_size
            wanted = min(size, count * LINE)
            data = os.pread(fd, wanted, size - wanted)
    except OSError as error:
        if is_absent(error):
            return None
        raise
    pieces = data.decode(errors="ignore").split("\n")[-count:] if count else []
    sessions = sorted(
        _sessions(reversed(pieces), since).values(), key=lambda one: str(one["last_activity"]), reverse=True
    )
    return orjson.dumps(
        {"active_sessions": sessions, "total_active": len(sessions), "scanned_lines": len(pieces)}
    )


def _sessions(pieces: Iterable[str], since: float) -> dict[str, dict[str, Any]]:
    """By session, from the newest line on: what was said last comes first."""
    found: dict[str, dict[str, Any]] = {}
    for piece in pieces:
        said = _completion(piece)
        if said is None or not _is_recent(said["timestamp"], since) or not said["session_id"]:
            continue
        session = str(said["session_id"])
        if session not in found:
            found[session] = {
                "session_id": said["session_id"],
                "last_activity": said["timestamp"],
                "client_id": said["sender"],
                "message_count": 0,
                "last_response": plain(said["content"]),
                "model": said["model"],
            }
        found[session]["message_count"] += 1
    return found


def _completion(piece: str) -> Message | None:
    try:
        value = decode(piece.encode())
    except ValueError:
        return None
    return None if value is None else bus_message(value)


def _is_recent(stamp: str | None, since: float) -> bool:
    if stamp is None:
        return False
    try:
        time = datetime.fromisoformat(stamp)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() >= since
    except (ValueError, OverflowError):
        return False
