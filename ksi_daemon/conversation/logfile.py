"""Logs as both sides open them, and their bytes as lines: bounded, whatever lies there. Blocks."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ksi_daemon.conversation.core import BUS, DAMAGED, ENDING, is_session
from ksi_daemon.linesplitter import LARGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

BLOCK = 64 * 1024
"""Bytes that are read at once: they fit a core's cache, and memory that is used again, not asked for anew."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NONE = frozenset({BUS + ENDING, ENDING})
"""Names that look like logs of sessions and are none."""

_FORMAT = stat.S_IFMT(0o177777)
_ABSENT = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EINVAL})


class Seen(NamedTuple):
    """Which content of which file: what a change of it cannot leave as it is."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


Look = tuple[int, int, int, int, int]
"""A `Seen` as a plain tuple, which costs half, for each log of each refresh."""


def seen(found: os.stat_result) -> Seen:
    """What a stat says of it."""
    return Seen(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def log_of(folder: str, session: str) -> str:
    """The path of a session's log."""
    return f"{folder}/{session}{ENDING}"


def open_log(path: str, _flags: int = 0) -> int:
    """A descriptor of a regular file, never through a link and never waiting for the other end of a FIFO.

    Raises `OSError`; see `is_absent`.
    """
    return open_seen(path)[0]


def open_seen(path: str) -> tuple[int, Seen]:
    """As `open_log`, and what is seen of it."""
    fd = os.open(path, _FLAGS)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd, seen(found)


def is_absent(error: OSError) -> bool:
    """Whether there is no log, or something else in its place, which counts as none."""
    return error.errno in _ABSENT


def listed(folder: str, at_once: int = 400) -> Iterator[dict[str, Look]]:
    """Every session with a log, some at a time, in no order; none without the directory. Raises `OSError`.

    Each costs one stat, by the short way of an open directory, and as little as can be besides.
    """
    with suppress(FileNotFoundError), _directory(folder) as fd, os.scandir(fd) as entries:
        while some := list(islice(entries, at_once)):
            yield _looks(some)


def _looks(entries: list[os.DirEntry[str]]) -> dict[str, Look]:
    size, regular = len(ENDING), stat.S_IFREG
    named = [
        (name[:-size], entry)
        for entry in entries
        if (name := entry.name).endswith(ENDING)
        and (name.isascii() or is_session(name[:-size]))
        and name not in _NONE
    ]
    stats = [(session, found) for session, entry in named if (found := _stat(entry)) is not None]
    return {
        session: (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        for session, found in stats
        if found.st_mode & _FORMAT == regular
    }


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:  # it has just gone
        return None


def only_folder(folder: str) -> None:
    """Raise `OSError` unless it is a directory that can be searched, or missing."""
    with suppress(FileNotFoundError), _directory(folder):
        pass


@contextmanager
def _directory(folder: str) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of an open log with their newlines, one at a time; `DAMAGED` for one over 16 MiB."""
    small = os.fstat(file.fileno()).st_size <= LARGEST_LINE
    return iter(file) if small else _bounded_lines(file)


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LARGEST_LINE + 1):
        if len(line) > LARGEST_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(BLOCK)) and not rest.endswith(b"\n"):
                pass
            yield DAMAGED
        else:
            yield line


@contextmanager
def opened(path: str) -> Iterator[int]:
    """The descriptor of `open_log`, closed at the end."""
    fd = open_log(path)
    try:
        yield fd
    finally:
        os.close(fd)


def blocks(
    fd: int, start: int, end: int, check: Callable[[], None], size: int = BLOCK
) -> Iterator[tuple[int, bytes]]:
    """The bytes from `start` to `end` as whole lines: where a block ends, and the block; `size` the first.

    Each ends with a newline, but for what follows the last one. A line over 16 MiB comes as `DAMAGED`.
    Memory is bounded by one block and one line. `check` is called for each piece that is read.
    """
    joined, parts = 0, list[bytes]()
    while start < end and (piece := _piece(fd, min(size, end - start), start, check)):
        size = min(2 * size, BLOCK)
        first, cut = piece.find(b"\n") + 1, piece.rfind(b"\n") + 1
        if not cut:
            joined += len(piece)
            parts = [*parts, piece] if joined <= LARGEST_LINE else []
        else:
            too_long = joined + first - 1 > LARGEST_LINE
            if too_long:
                yield start + first, DAMAGED + b"\n"
            if cut > first or not too_long:
                yield start + cut, piece[first:cut] if too_long else b"".join((*parts, piece[:cut]))
            joined, parts = len(piece) - cut, [piece[cut:]]
        start += len(piece)
    if joined:
        yield start, b"".join(parts) if joined <= LARGEST_LINE else DAMAGED


def _piece(fd: int, size: int, at: int, check: Callable[[], None]) -> bytes:
    check()
    return os.pread(fd, size, at)
