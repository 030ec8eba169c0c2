"""The index of all logs: what was counted of each, kept in one process and in a file that may be lost."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.conversation.counted import counted_of, settled
from ksi_daemon.conversation.logfile import opened
from ksi_daemon.linefile import private_directory
from ksi_daemon.replace import replace_by, sweep, write_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ksi_daemon.conversation.counted import Kept

VERSION = 1
LARGEST = 256 * 1024 * 1024
PREFIX = "conversations."


class Index:
    """What is known of the logs of one directory. `version` changes with every change."""

    def __init__(self, folder: str, path: str) -> None:
        self._folder = folder
        self._path = path
        self._token = secrets.token_hex(8)
        self._changes = 0
        self._saved = 0
        self.kept: dict[str, Kept] = {}
        self.settled: dict[str, Any] = {}
        """What must be seen of each log so that it need not be read again: two look-ups less for each."""

    @property
    def version(self) -> str:
        """Names this state of this index; no other process ever has the same."""
        return f"{self._token}-{self._changes}"

    def change(self, found: Iterable[tuple[str, Kept | None]], gone: Iterable[str]) -> None:
        """Take in what was read anew, and what is gone: the one as the other, if it could not be read."""
        for session, kept in found:
            if kept is None:
                self._forget(session)
            elif kept != self.kept.get(session):
                self.kept[session] = kept
                self.settled[session] = settled(kept)
                self._changes += 1
        for session in gone:
            self._forget(session)

    def _forget(self, session: str) -> None:
        self._changes += self.kept.pop(session, None) is not None
        self.settled.pop(session, None)

    def load(self) -> None:
        """Take up what a process before has saved; anything odd about it counts as nothing."""
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            with opened(self._path) as fd:
                size = os.fstat(fd).st_size
                data = os.pread(fd, size, 0) if size <= LARGEST else b""
            head, body = data.split(b"\n", 1)
            if orjson.loads(head) == self._head(body):
                rows = orjson.loads(body)
                self.kept = {row[0]: _kept(row[1:]) for row in rows}
                self.settled = {session: settled(kept) for session, kept in self.kept.items()}

    def save(self) -> bool:
        """Write it to its file, if there is something new. Raises `OSError`."""
        if self._saved == self._changes:
            return False
        path = Path(self._path)
        body = orjson.dumps([(session, *kept) for session, kept in self.kept.items()])
        head = orjson.dumps(self._head(body))
        private_directory(path.parent)
        sweep(path.parent, PREFIX)
        replace_by(path, lambda fd: write_pieces(fd, (head, b"\n", body)), durability="os", prefix=PREFIX)
        self._saved = self._changes
        return True

    def _head(self, body: bytes) -> dict[str, Any]:
        digest = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        return {"version": VERSION, "folder": self._folder, "digest": digest}


def _kept(row: list[Any]) -> Kept:
    """Raises `ValueError` or `TypeError` for what `Counted.kept` cannot have made."""
    seen, is_settled, offset, print_, done, whole = row
    counts = _counts(done), None if whole is None else _counts(whole)
    kept = (tuple(map(int, seen)), bool(is_settled), int(offset), str(print_), *counts)
    counted_of(kept)
    return kept


def _counts(values: list[Any]) -> tuple[Any, ...]:
    messages, skipped, first, last, names, claude, user = values
    return (messages, skipped, first, last, tuple(names), claude, user)
