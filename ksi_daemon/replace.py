"""Replace a file whole: whoever reads it, and whatever crashes, finds the old content or the new."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from ksi_daemon.linefile import sync_to_disk

if TYPE_CHECKING:
    from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(path: Path | str, data: bytes, *, like: os.stat_result | None = None) -> None:
    """Put `data` in the place of `path` and on the disk, by temp file and rename (POSIX rename(2)). Blocks.

    The file is 0600, or has the mode and owner of `like`. A link at `path` is itself replaced: resolve it
    first to keep it. On `OSError` the old file stands and nothing is left beside it, unless the last step
    failed, the directory's fsync: then the new one stands, but a power cut may bring the old one back.
    """
    folder, name = os.path.split(os.path.abspath(path))
    # A short name of its own: `name` may already be as long as the file system allows.
    temp = os.path.join(folder, f".{secrets.token_hex(8)}.tmp")
    try:
        _write(temp, data, like)
        os.rename(temp, os.path.join(folder, name))
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            os.unlink(temp)
        raise
    _sync_folder(folder)


def _write(temp: str, data: bytes, like: os.stat_result | None) -> None:
    fd = os.open(temp, _NEW, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if like is not None:
            _become(fd, like)
        else:
            os.fchmod(fd, 0o600)
        sync_to_disk(fd)
    finally:
        os.close(fd)


def _become(fd: int, like: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(fd, like.st_uid, like.st_gid)
    os.fchmod(fd, like.st_mode & 0o7777)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)  # F_FULLFSYNC takes files only
    finally:
        os.close(fd)
