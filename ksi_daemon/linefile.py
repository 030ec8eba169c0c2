"""An append-only file of whole lines: the blocking half of both sides of an append component.

Whatever happens between two system calls, the file holds whole lines and at most one torn tail, which
the next `open` mends: a tail that is a whole JSON object gets its newline, anything else is cut and kept
beside the log as `<name>.torn-<offset>-<digest>`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import sys
from typing import TYPE_CHECKING

import orjson

from ksi_daemon.errors import IoFailed, OutcomeUnknown
from ksi_daemon.linesplitter import LARGEST_LINE

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.site import Durability

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_BLOCK = 64 * 1024


def sync_to_disk(fd: int) -> None:
    """`fsync`, or on macOS `F_FULLFSYNC`, since there fsync stops at the drive's cache (Apple, fsync(2))."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


class LineFile:
    """One log, and what is known of it: which file it is and where it ends.

    The async side keeps it open (`open`, `append`, `close`). The sync side opens it for each line with
    `open(path, "a", opener=file.opener)`, as the original did, and reports `wrote` or `take_back`. One
    thread at a time. Directories are made 0700, the file 0600. A link, a FIFO or a device in the log's place
    is refused (ELOOP, EINVAL).
    """

    def __init__(self, path: Path, component: str) -> None:
        self.path = path
        self._name = os.fspath(path)
        self._component = component
        self._fd = -1
        self._file = (0, 0)
        self._end = 0
        self._begun = False

    @property
    def end(self) -> int:
        """The log's size in bytes, as last seen."""
        return self._end

    def open(self) -> None:
        """Open for appending and mend a torn tail; harmless when open already. Raises `IoFailed`."""
        try:
            if self._fd < 0:
                self._file = (0, 0)  # forget what was known: the tail is mended here, not just closed off
                self._fd = self.opener(self._name)
                self._settle()
        except OSError as error:
            self.close()
            raise IoFailed(self._component, f"open {self.path}", error) from error

    def close(self) -> None:
        """Let the handle go; the next `append` opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def append(self, data: bytes, durability: Durability = "os") -> None:
        """Add `data`, which is whole lines. When it returns they are in the file (`fsync`: on the disk).

        A log that somebody rotated, removed or cut short meanwhile is noticed and opened again. Raises
        `IoFailed` when nothing of `data` is left in the file, `OutcomeUnknown` when that cannot be said.
        """
        try:
            self._reach()
            write_all(self._fd, data)
            if durability == "fsync":
                sync_to_disk(self._fd)
        except OSError as error:
            self.close()
            raise self.take_back(data, error) from error
        self.wrote(data)
        if not os.fstat(self._fd).st_nlink:  # removed while we wrote, and the lines with it
            self.close()
            self.append(data, durability)

    def opener(self, name: str, _flags: int = 0) -> int:
        """A handle on the log of now, for `open(..., opener=)`; a missing file is made, a gap closed."""
        self._begun = False
        known = self._file, self._end
        fd, created = self._handle(name)
        try:
            found = os.fstat(fd)
            _only_regular(found, name)
            self._file, self._end = (found.st_dev, found.st_ino), found.st_size
            if created:
                self._sync_directory()
            elif known != (self._file, self._end) and known[0] != (0, 0):
                self._close_gap(fd)
        except OSError:
            os.close(fd)
            raise
        self._begun = True
        return fd

    def wrote(self, data: bytes) -> None:
        """Note that `data` stands at the end of the log."""
        self._end += len(data)

    def take_back(self, data: bytes, cause: OSError) -> IoFailed:
        """Cut a failed append back out of the log; the error to raise says whether that succeeded."""
        action = f"append to {self.path}"
        try:
            if self._begun:
                self._cut_back(data)
        except OSError:
            return OutcomeUnknown(self._component, action, cause)
        return IoFailed(self._component, action, cause)

    def _handle(self, name: str) -> tuple[int, bool]:
        with contextlib.suppress(FileNotFoundError):
            return os.open(name, _FLAGS), False
        private_directory(self.path.parent)
        with contextlib.suppress(FileExistsError):
            return os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True
        return os.open(name, _FLAGS), False

    def _reach(self) -> None:
        """Make sure that the handle is the log of now and that the next byte begins a line."""
        self._begun = False
        if self._fd >= 0:
            end = self._end
            if self._moved():
                self.close()
            elif self._end != end:
                self._close_gap(self._fd)
        if self._fd < 0:
            self._fd = self.opener(self._name)
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        self._begun = True

    def _moved(self) -> bool:
        """Whether the log's name stands for another file by now; notes its present size."""
        try:
            found = os.stat(self._name, follow_symlinks=False)
        except FileNotFoundError:
            return True
        self._end = found.st_size
        return (found.st_dev, found.st_ino) != self._file

    def _close_gap(self, fd: int) -> None:
        """Another writer left the last line open: end it, so that the damage stays in that line.

        If it is only in the middle of its write, the kernel lets ours in behind it: a blank line, no damage.
        """
        if self._end and os.pread(fd, 1, self._end - 1) != b"\n":
            self._end += os.write(fd, b"\n")

    def _cut_back(self, data: bytes) -> None:
        """Remove what of `data` stands after the known end; anything else there raises `OSError`."""
        fd = os.open(self._name, _FLAGS)
        try:
            found = os.fstat(fd)
            extra = found.st_size - self._end
            same = (found.st_dev, found.st_ino) == self._file
            if not same or not 0 <= extra <= len(data) or os.pread(fd, extra, self._end) != data[:extra]:
                raise OSError(errno.EBUSY, "another writer is on the log", self._name)
            os.ftruncate(fd, self._end)
        finally:
            os.close(fd)

    def _settle(self) -> None:
        """Mend the tail if nobody else has the log open, and keep others from mending while we write.

        A second writer of ours finds it shared (or waits for the mending to end) and only ends the line.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            self._end = os.fstat(self._fd).st_size
            self._close_gap(self._fd)
        else:
            self._mend()
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def _mend(self) -> None:
        self._end = os.fstat(self._fd).st_size
        if self._end and os.pread(self._fd, 1, self._end - 1) != b"\n":
            self._mend_tail(self._last_newline() + 1)

    def _mend_tail(self, start: int) -> None:
        if self._is_whole(start):
            write_all(self._fd, b"\n")
        else:
            self._keep(start)
            os.ftruncate(self._fd, start)
        sync_to_disk(self._fd)
        self._end = os.fstat(self._fd).st_size

    def _last_newline(self) -> int:
        end = self._end
        while end > 0:
            start = max(0, end - _BLOCK)
            found = os.pread(self._fd, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found
            end = start
        return -1

    def _is_whole(self, start: int) -> bool:
        if self._end - start > LARGEST_LINE:
            return False
        try:
            return isinstance(orjson.loads(os.pread(self._fd, self._end - start, start)), dict)
        except orjson.JSONDecodeError:
            return False

    def _keep(self, start: int) -> None:
        """Copy the tail beside the log, whole and on the disk, before it is cut."""
        partial = f"{self._name}.torn-partial"
        digest = hashlib.sha256()
        out = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for offset in range(start, self._end, _BLOCK):
                piece = os.pread(self._fd, min(_BLOCK, self._end - offset), offset)
                digest.update(piece)
                write_all(out, piece)
            sync_to_disk(out)
        finally:
            os.close(out)
        os.replace(partial, f"{self._name}.torn-{start}-{digest.hexdigest()[:12]}")
        self._sync_directory()

    def _sync_directory(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _only_regular(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)


def private_directory(path: Path) -> None:
    """Make `path` and its missing parents, each 0700 whatever the umask; what exists is left as it is."""
    if not path.is_dir():
        private_directory(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)


def write_some(fd: int, data: bytes) -> int:
    """One `write(2)`; a write of nothing counts as a full disk, so no caller spins on it."""
    written = os.write(fd, data)
    if data and not written:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return written


def write_all(fd: int, data: bytes) -> None:
    """Every byte of `data`, in as many writes as the kernel takes."""
    while data:
        data = data[write_some(fd, data) :]
