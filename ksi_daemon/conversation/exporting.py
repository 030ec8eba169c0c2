"""Exports: what they look like, and how one comes whole into a free place. On both sides. Blocks."""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ksi_daemon.conversation.core import Exported
from ksi_daemon.linefile import private_directory, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ksi_daemon.conversation.core import Order
    from ksi_daemon.conversation.messages import Message

ENDINGS = {"markdown": "md", "json": "json"}
"""The formats, and how their files end."""

MOST = 10_000
"""Messages in one export."""

PREFIX = "export."
"""Begins the names of the temporary files, after a dot."""

ABANDONED = 3600.0
"""Seconds after which a temporary file belongs to nobody: an export takes some seconds at most."""

UNKNOWN_TIME = "unknown time"
"""Stands for the time of a message without a stamp."""

LONGEST_PART = 200
"""Bytes of a session id in a file name, which holds more than that."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK})


def name_of(session: str, at: float) -> str:
    """An export's name without its ending: the session and the local time, to the second."""
    part = session.encode()[:LONGEST_PART].decode(errors="ignore")
    return f"conversation_{part}_{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d_%H-%M-%S}"


def local(stamp: str | None) -> str:
    """A stamp in local time; one without a zone is in UTC, and what is no time stays as it is."""
    if stamp is None:
        return UNKNOWN_TIME
    try:
        at = datetime.fromisoformat(stamp)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return stamp


def rendered(order: Order, messages: Sequence[Message]) -> bytes:
    """The content of an export."""
    render = _markdown if order.format == "markdown" else _json
    return render(order, messages).encode()


def _markdown(order: Order, messages: Sequence[Message]) -> str:
    lines = [
        f"# Conversation Export: {order.session}",
        f"*Exported on {_exported(order)}*",
        f"*Total messages: {len(messages)}*",
        "---",
    ]
    for message in messages:
        to = message.get("to")
        who = f"{message['sender']} → {_text(to)}" if to else message["sender"]
        lines += [f"### {local(message['timestamp'])} - {who}", _text(message["content"]), "---"]
    return "\n".join([*lines, ""])


def _json(order: Order, messages: Sequence[Message]) -> str:
    whole = {
        "session_id": order.session,
        "exported_at": _exported(order),
        "exported_at_iso": datetime.fromtimestamp(order.at, UTC).isoformat(),
        "total_messages": len(messages),
        "messages": [_entry(message) for message in messages],
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


def _entry(message: Message) -> dict[str, Any]:
    entry = {
        "timestamp": message["timestamp"],
        "display_time": local(message["timestamp"]),
        "sender": message["sender"],
        "content": message["content"],
        "type": message["type"],
    }
    return {**entry, "to": message["to"]} if message.get("to") else entry


def _exported(order: Order) -> str:
    return f"{datetime.fromtimestamp(order.at, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _text(value: Any) -> str:
    return value if type(value) is str else json.dumps(value, ensure_ascii=False)


def sweep(folder: Path) -> None:
    """Remove temporary files that a crash has left; not those of an export that is just being written."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(f".{PREFIX}") and entry.name.endswith(".tmp"):
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED:
                        os.unlink(entry.path)


def write(folder: Path, order: Order, messages: Sequence[Message]) -> Exported:
    """Put an export into a place that nothing has, by a link that the kernel makes or refuses as a whole.

    The file is 0600. On `OSError` nothing is left.
    """
    data = rendered(order, messages)
    private_directory(folder)
    temp = os.path.join(folder, f".{PREFIX}{secrets.token_hex(8)}.tmp")
    try:
        fd = os.open(temp, _NEW, 0o600)
        try:
            write_all(fd, data)
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        name = _placed(temp, folder, order)
    finally:
        with suppress(OSError):
            os.unlink(temp)
    return Exported(len(messages), len(data), name)


def _placed(temp: str, folder: Path, order: Order) -> str:
    """The first name that was free."""
    for name in _names(order):
        path = os.path.join(folder, name)
        with suppress(FileExistsError):
            try:
                os.link(temp, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _renamed(temp, path)
            return name
    raise AssertionError  # pragma: no cover - there is no last name


def _renamed(temp: str, path: str) -> None:
    """Where there are no links: keep the place with an empty file, and rename over that."""
    os.close(os.open(path, _NEW, 0o600))
    os.rename(temp, path)


def _names(order: Order) -> Iterator[str]:
    ending, number = ENDINGS[order.format], 1
    yield f"{order.name}.{ending}"
    while True:
        number += 1
        yield f"{order.name}_{number}.{ending}"
