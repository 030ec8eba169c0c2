"""Replace a file whole: whoever reads it, and whatever crashes, finds the old content or the new."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING

from ksi_daemon.linefile import sync_to_disk, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ksi_daemon.site import Durability

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMP = re.compile(r"[0-9a-f]{16}\.tmp")
_AT_ONCE = 512
"""Pieces that one writev(2) takes; POSIX allows 1,024 on every system that we know."""


class Abandoned(Exception):
    """The new content was not wanted any more when it was about to take its place."""


class NotSynced(OSError):
    """The new content is in its place, but may not survive a power cut: the directory's fsync failed."""


def replace_file(path: Path | str, data: bytes, *, like: os.stat_result | None = None) -> None:
    """Put `data` in the place of `path` and on the disk, by temp file and rename (POSIX rename(2)). Blocks.

    The file is 0600, or has the mode and owner of `like`. A link at `path` is itself replaced: resolve it
    first to keep it. On `OSError` the old file stands and nothing is left beside it, unless it is
    `NotSynced`: then the new one stands, but a power cut may bring the old one back.
    """
    replace_by(path, lambda fd: write_all(fd, data), like=like)


def replace_by(
    path: Path | str,
    write: Callable[[int], None],
    *,
    durability: Durability = "fsync",
    like: os.stat_result | None = None,
    prefix: str = "",
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """As `replace_file`, with `write` filling the descriptor that it is given.

    `durability: os` leaves it to the kernel when the disk is reached. The temp file's name begins with a dot
    and `prefix`, so that `sweep` finds what a crash left. Just before the new content takes its place
    `wanted` is asked; if it says no, nothing is changed and `Abandoned` raised.
    """
    with prepared(path, write, durability=durability, like=like, prefix=prefix) as put:
        if not wanted():
            raise Abandoned
        put()


@contextlib.contextmanager
def prepared(
    path: Path | str,
    write: Callable[[int], None],
    *,
    durability: Durability = "fsync",
    like: os.stat_result | None = None,
    prefix: str = "",
    dir_fd: int | None = None,
) -> Iterator[Callable[..., None]]:
    """The new content of `path`, written beside it and (`fsync`) on the disk; calling it puts it in place.

    What can fail for want of space has happened by then. If it is not called, nothing is left. With `dir_fd`,
    `path` is a name in that directory, whatever takes the directory's own place meanwhile. It may be called
    with another name, when that is known only now.
    """
    folder, name = os.path.split(path if dir_fd is not None else os.path.abspath(path))
    # A short name of its own: `name` may already be as long as the file system allows.
    temp = os.path.join(folder, f".{prefix}{secrets.token_hex(8)}.tmp")
    placed = False

    def put(to: str = name) -> None:
        nonlocal placed
        os.rename(temp, os.path.join(folder, to), src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        placed = True
        if durability == "fsync":
            sync_folder(folder if dir_fd is None else dir_fd)

    try:
        _fill(temp, write, durability, like, dir_fd)
        yield put
    finally:
        if not placed:
            with contextlib.suppress(OSError):  # the first error is the one to report
                os.unlink(temp, dir_fd=dir_fd)


def write_pieces(fd: int, pieces: Sequence[bytes]) -> None:
    """Every byte of all pieces, in order, without joining them: that would hold the interpreter."""
    for start in range(0, len(pieces), _AT_ONCE):
        group = pieces[start : start + _AT_ONCE]
        written = os.writev(fd, group)
        for piece in group:  # only a full disk or a limit makes a write short; the rest tells which
            if written < len(piece):
                write_all(fd, piece[written:])
                written = 0
            else:
                written -= len(piece)


def sweep(folder: Path | str | int, prefix: str) -> None:
    """Remove the temp files of `replace_by` with this prefix that a crash has left in `folder`. Blocks.

    A directory may be given by its descriptor, too.
    """
    start = f".{prefix}"
    names: list[str] = []
    with contextlib.suppress(OSError):  # no folder, nothing left
        names = os.listdir(folder)
    for name in names:
        if name.startswith(start) and _TEMP.fullmatch(name, len(start)):
            with contextlib.suppress(OSError):  # what cannot be removed harms nobody
                _unlink_in(folder, name)


def _unlink_in(folder: Path | str | int, name: str) -> None:
    if isinstance(folder, int):
        os.unlink(name, dir_fd=folder)
    else:
        os.unlink(os.path.join(folder, name))


def only_regular(path: Path | str) -> None:
    """Raise `OSError` unless `path` is a regular file or missing: ELOOP for a link, EISDIR, else EINVAL."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        number = {stat.S_IFLNK: errno.ELOOP, stat.S_IFDIR: errno.EISDIR}.get(stat.S_IFMT(mode), errno.EINVAL)
        raise OSError(number, os.strerror(number), os.fspath(path))


def _fill(
    temp: str,
    write: Callable[[int], None],
    durability: Durability,
    like: os.stat_result | None,
    dir_fd: int | None,
) -> None:
    fd = os.open(temp, _NEW, 0o600, dir_fd=dir_fd)
    try:
        write(fd)
        if like is not None:
            _become(fd, like)
        else:
            os.fchmod(fd, 0o600)
        if durability == "fsync":
            sync_to_disk(fd)
    finally:
        os.close(fd)


def _become(fd: int, like: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(fd, like.st_uid, like.st_gid)
    os.fchmod(fd, like.st_mode & 0o7777)


def sync_folder(folder: str | int) -> None:
    """Have what was renamed in a directory, given by path or descriptor, survive a power cut.

    Raises `NotSynced`.
    """
    try:
        if isinstance(folder, int):
            os.fsync(folder)  # F_FULLFSYNC takes files only
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise NotSynced(error.errno, error.strerror) from error
