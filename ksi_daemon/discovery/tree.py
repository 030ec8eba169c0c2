"""The source tree on the disk: whether it changed, and what its files hold. Blocks."""

from __future__ import annotations

import os
import stat
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from ksi_daemon.discovery import extract
from ksi_daemon.discovery.failures import TreeTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ksi_daemon.discovery.core import Example

_YOUNG: Final = 100_000_000
"""Nanoseconds after a change within which another one may have the same time stamp."""

_AHEAD: Final = 1_000_000_000
"""Nanoseconds by which another machine's clock may be ahead; beyond that it says nothing about our time."""

_IGNORE_FILES: Final = frozenset({".gitignore", ".ignore", ".rgignore"})
_MINED: Final = (".py", *_IGNORE_FILES)
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Look(NamedTuple):
    """What a tree looked like: two equal digests mean that nothing was changed in between.

    `files` is of all files, `python` of those that are mined. One is empty where a change could hide behind
    another one that is only just over. `took_s` is how long it took to look.
    """

    files: bytes
    python: bytes
    took_s: float


class _Digest:
    """Of the names, sizes, times and inodes of some files."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._newest = 0

    def add(self, row: bytes, changed: int) -> None:
        self._hash.update(row)
        self._newest = max(self._newest, changed)

    def value(self, now: int) -> bytes:
        young = now - _YOUNG < self._newest < now + _AHEAD
        return b"" if young else self._hash.digest()


def look(tree: str, left_out: str, most_s: float, go_on: Callable[[], None]) -> Look:
    """Look at the name, size, times and inode of every file that `rg` may read, opening none.

    `left_out` is a directory, relative to the tree, that is passed over, like those that are hidden or called
    `__pycache__`. `go_on` is called for each directory, and may raise. Raises `OSError` when the tree cannot
    be read, and `TreeTooLarge` after `most_s` seconds; what cannot be read in it counts as empty.
    """
    begun, now = time.perf_counter(), time.time_ns()
    files, python = _Digest(), _Digest()

    def check() -> None:
        go_on()
        if time.perf_counter() - begun > most_s:
            raise TreeTooLarge(tree, most_s)

    for path, found in _files(tree, left_out, check):
        row = (path, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        packed = repr(row).encode("utf-8", "surrogateescape")
        files.add(packed, found.st_ctime_ns)
        if path.endswith(_MINED):
            python.add(packed, found.st_ctime_ns)
    return Look(files.value(now), python.value(now), time.perf_counter() - begun)


def _files(tree: str, left_out: str, check: Callable[[], None]) -> Iterator[tuple[str, os.stat_result]]:
    """All files below, by path: the order in which a file system lists is not always the same."""
    folders = [""]
    while folders:
        folder = folders.pop()
        listed = _listed(os.path.join(tree, folder), must=not folder)
        check()
        for name, is_folder, found in listed:
            path = os.path.join(folder, name)
            if not is_folder:
                if name[0] != "." or name in _IGNORE_FILES:
                    yield path, found
            elif name[0] != "." and name != "__pycache__" and path != left_out:
                folders.append(path)


def _listed(folder: str, *, must: bool) -> list[tuple[str, bool, os.stat_result]]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    known = entry.stat(follow_symlinks=False)
                except OSError:  # gone meanwhile
                    continue
                found.append((entry.name, stat.S_ISDIR(known.st_mode), known))
    except OSError:
        if must:
            raise
    return sorted(found, key=lambda row: row[0])


def examples(
    tree: str, files: Sequence[tuple[str, Sequence[str]]], most_bytes: int, go_on: Callable[[], None]
) -> Iterator[tuple[str, Example]]:
    """The examples in files, each given with the events to look for. What cannot be read has none."""
    for path, events in files:
        go_on()
        source = read(tree, path, most_bytes)
        if source is not None:
            for event, rows in extract.examples(path, source, frozenset(events)).items():
                yield from ((event, row) for row in rows)


def read(tree: str, path: str, most_bytes: int) -> bytes | None:
    """A regular file of the tree, reached over no link; None if it is none, larger, or cannot be read."""
    *folders, name = [part for part in path.split("/") if part != "."]
    if ".." in folders:
        return None
    try:
        fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                below = os.open(folder, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
            return _read(os.open(name, _FILE, dir_fd=fd), most_bytes)
        finally:
            os.close(fd)
    except OSError:
        return None


def _read(fd: int, most_bytes: int) -> bytes | None:
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most_bytes:
            return None
        return file.read(most_bytes)
