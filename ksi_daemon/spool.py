"""The unnamed files that are the stdin, stdout and stderr of one command."""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING

from ksi_daemon.linefile import private_directory, write_all

if TYPE_CHECKING:
    from pathlib import Path


PIECE = 16 * 1024
"""Bytes that `Spool.more` gives at once: who takes them may be the loop, and reads messages out of them."""


class Flood(Exception):
    """The command printed more than it may, on stdout or stderr."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"more than {most_bytes} bytes were printed")


class Spool:
    """Three files that no name leads to (0600), so nothing of them outlives their users. Its methods block.

    Files and not pipes: a pipe's reader waits for every process that inherited its other end, and a flood
    in a pipe fills memory.
    """

    def __init__(self, folder: Path, content: bytes, most_bytes: int) -> None:
        self._folder = folder
        self._content = content
        self._most_bytes = most_bytes
        self._files: list[IO[bytes]] = []
        self._told = 0

    def open(self) -> None:
        """Make the files, in a folder that is made (0700) if it is missing; `content` is what stdin holds."""
        private_directory(self._folder)
        for _ in range(3):
            self._files.append(tempfile.TemporaryFile(dir=self._folder, buffering=0))  # noqa: SIM115 - `close`
        stdin = self.fds[0]
        write_all(stdin, self._content)
        os.lseek(stdin, 0, os.SEEK_SET)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors for stdin, stdout and stderr, once they are open."""
        return tuple(file.fileno() for file in self._files)

    def check(self) -> None:
        """Raise `Flood` when more than `most_bytes` stand in stdout or in stderr."""
        if any(os.fstat(fd).st_size > self._most_bytes for fd in self.fds[1:]):
            raise Flood(self._most_bytes)

    def more(self) -> bytes:
        """What stands in stdout beyond all that this has given before, at most `PIECE`.

        Raises `Flood` when nothing is left to give that may be given.
        """
        piece = os.pread(self.fds[1], min(PIECE, self._most_bytes - self._told), self._told)
        self._told += len(piece)
        if not piece:
            self.check()
        return piece

    def read(self) -> tuple[bytes, bytes]:
        """All of stdout and of stderr, wherever the command has set their common offset. Raises `Flood`.

        Of stdout, what `more` has not given.
        """
        self.check()
        _, stdout, stderr = self.fds
        return _all_of(stdout, self._told), _all_of(stderr)

    def close(self) -> None:
        """Let the files go; harmless when they are not open."""
        while self._files:
            self._files.pop().close()


def _all_of(fd: int, end: int = 0) -> bytes:
    pieces = []
    size = os.fstat(fd).st_size
    while end < size and (piece := os.pread(fd, size - end, end)):
        pieces.append(piece)
        end += len(piece)
    return b"".join(pieces)
