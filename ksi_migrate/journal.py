"""The journal, `var/migrate/journal.jsonl`: the daemon and `ksi-migrate` append to it, nobody rewrites it."""

from __future__ import annotations

import contextlib
import getpass
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon import wire
from ksi_daemon.conductor import utc_now
from ksi_daemon.linefile import private_directory, sync_to_disk, write_all
from ksi_daemon.recorder import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Journal:
    """Every entry that could be read, oldest first, and how many lines could not."""

    entries: tuple[dict[str, Any], ...]
    damaged: int


def who() -> str:
    """The user's name, or the number of one who has none, as text that any file can hold."""
    try:
        return clean(getpass.getuser())
    except (OSError, KeyError):  # no entry for this user id (KeyError before Python 3.13)
        return f"uid {os.getuid()}"


def clean(text: str) -> str:
    """Text from the command line without the surrogates that stand for bytes that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def entry(
    action: str, component: str, before: str | None, after: str, why: str, **more: Any
) -> dict[str, Any]:
    """One entry, in the daemon's own shape, with whatever else there is to say."""
    frame = {"at": utc_now(), "who": who(), "action": action, "component": component}
    return {**frame, "from": before, "to": after, "why": clean(why), **more}


def append(migrate_dir: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Add entries in one write, and put them on the disk. Raises `OSError`.

    A line that somebody else left open is ended first, so that the damage stays in that line.
    """
    private_directory(migrate_dir)
    fd = os.open(migrate_dir / JOURNAL, _APPEND, 0o600)
    try:
        size = os.fstat(fd).st_size
        gap = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
        write_all(fd, gap + b"".join(map(wire.encode, entries)))
        sync_to_disk(fd)
    finally:
        os.close(fd)


def append_or_say(migrate_dir: Path, entries: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Add entries; a journal that cannot be written holds nothing up and is told in a note."""
    try:
        append(migrate_dir, entries)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return (f"not in the journal {migrate_dir / JOURNAL}: {reason}",)
    return ()


def read(migrate_dir: Path) -> Journal:
    """The whole journal; without a file it is empty. Raises `OSError`."""
    data = b""
    with contextlib.suppress(FileNotFoundError):
        data = (migrate_dir / JOURNAL).read_bytes()
    lines = [line for line in data.split(b"\n") if line.strip()]
    found = [value for line in lines if (value := _object(line)) is not None]
    return Journal(tuple(found), len(lines) - len(found))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
