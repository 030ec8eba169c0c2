"""Paths that cannot leave their base: whatever links say, and whoever exchanges them meanwhile.

A path is resolved once, to a descriptor of its last directory and a name in it that is no link, by openat2(2)
with `RESOLVE_BENEATH`, or component by component with the same answers; all else is done with the two.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ksi_daemon.linefile import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

LINKS: Final = 40
"""Links that one path may lead through (Linux path_resolution(7))."""

LONGEST: Final = 4095
"""Bytes of a path that the kernel takes (PATH_MAX, less its end)."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PASSED: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPENAT2, _NO_MAGICLINKS, _BENEATH = 437, 0x02, 0x08
_AGAIN: Final = 16


class Outside(Exception):
    """The path leads outside its base, or is none at all."""


@dataclass(slots=True)
class Spot:
    """Where a path ends: `name` in the directory open as `fd`, whose own path is `folder`.

    `name` was no link when it was found; whatever opens it follows none.
    """

    fd: int
    name: str
    folder: str
    made: list[str] = field(default_factory=list)
    """The directories that had to be made for it, outermost first."""

    @property
    def path(self) -> str:
        """The absolute path, without links."""
        return os.path.join(self.folder, self.name)

    def open(self) -> int:
        """A descriptor to read the file with. Raises `OSError`: EISDIR, EINVAL unless it is a regular file.

        Never waits for the other end of a FIFO.
        """
        fd = os.open(self.name, _FILE, dir_fd=self.fd)
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            os.close(fd)
            raise _failure(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, self.path)
        return fd

    def stat(self) -> os.stat_result:
        """What lies there, never through a link."""
        return os.stat(self.name, dir_fd=self.fd, follow_symlinks=False)

    def unmake(self) -> None:
        """Remove the directories that were made for it, as far as they are empty."""
        _unmake(self.made)


@contextmanager
def reach(base: str, path: str, *, make: bool = False, kernel: bool = True) -> Iterator[Spot]:
    """The spot of `path`, relative to the directory `base` or absolute beneath it.

    `make` makes missing directories, 0700. `kernel=False` does without openat2. Raises `Outside`; `OSError`:
    `FileNotFoundError` for a missing directory, `IsADirectoryError` when the path has no last name.
    """
    rest = inside(base, path)
    made = _made_base(Path(base)) if make else []
    with ExitStack() as stack:
        try:
            base_fd = os.open(base, _PASSED)
            stack.callback(os.close, base_fd)
            walk = _Walk(base_fd, kernel=kernel and _has_openat2())
            fd, name = walk.end(rest, made if make else None)
            stack.callback(os.close, fd)
        except BaseException:
            _unmake(made)
            raise
        yield Spot(fd, name, _path_of(fd, base), made)


def _made_base(base: Path) -> list[str]:
    """Make the base itself; gives what was missing of it, outermost first."""
    missing = [str(folder) for folder in (base, *base.parents) if not folder.is_dir()]
    private_directory(base)
    return missing[::-1]


def _unmake(folders: list[str]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            os.rmdir(folder)


def inside(base: str, path: str) -> str:
    """`path` relative to `base`, as text: an absolute one must begin with the base's own components.

    Raises `Outside`, `OSError` ENAMETOOLONG.
    """
    if not path or "\0" in path:
        raise Outside(path)
    if len(os.fsencode(path)) > LONGEST:
        raise _failure(errno.ENAMETOOLONG, path)
    if not os.path.isabs(path):
        return path
    parts = _parts(path)
    for start in (_parts(base), _parts(os.path.realpath(base))):
        if parts[: len(start)] == start:
            return "/".join(parts[len(start) :])
    raise Outside(path)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def _relative(link: str) -> str:
    """An absolute link leads outside, wherever it points, as RESOLVE_BENEATH has it."""
    if os.path.isabs(link):
        raise Outside(link)
    return link


def _link(fd: int, name: str) -> str | None:
    """Where the name leads; None if it is no link, or nothing."""
    try:
        return _relative(os.readlink(name, dir_fd=fd))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


class _Walk:
    """Opens directories beneath one that is open, in either way."""

    def __init__(self, base: int, *, kernel: bool) -> None:
        self._base = base
        self._open = _by_kernel if kernel else _by_hand

    def end(self, path: str, made: list[str] | None) -> tuple[int, str]:
        """The last directory of a path, open, and the name in it, behind all links.

        With a list, missing directories are made and noted there.
        """
        folder, name = os.path.split(path)
        for _ in range(LINKS):
            if name in {"", ".", ".."}:
                os.close(self._folder(os.path.join(folder, name)))  # unless it leads outside
                raise _failure(errno.EISDIR, path)
            if made is not None:
                self._make(folder, made)
            fd = self._folder(folder, _FOLDER)
            try:
                target = _link(fd, name)
            except BaseException:
                os.close(fd)
                raise
            if target is None:
                return fd, name
            os.close(fd)
            folder, name = os.path.split(os.path.join(folder, target))
        raise _failure(errno.ELOOP, path)

    def _folder(self, path: str, flags: int = _PASSED) -> int:
        return self._open(self._base, path or ".", flags)

    def _make(self, path: str, made: list[str]) -> None:
        parts = _parts(path)
        for count in range(1, len(parts) + 1):
            try:
                os.close(self._folder("/".join(parts[:count])))
            except FileNotFoundError:
                above = self._folder("/".join(parts[: count - 1]))
                try:
                    os.mkdir(parts[count - 1], 0o700, dir_fd=above)  # EEXIST: a link that leads nowhere
                    made.append(os.path.join(_path_of(above, ""), parts[count - 1]))
                finally:
                    os.close(above)


def _by_hand(base: int, path: str, flags: int) -> int:
    """Component by component; a link's target takes the link's place in the path."""
    stack = [os.dup(base)]
    todo = deque(_parts(path))
    links = 0
    try:
        while todo:
            part = todo.popleft()
            if part == "..":
                if len(stack) == 1:
                    raise Outside(path)
                os.close(stack.pop())
                continue
            try:
                stack.append(os.open(part, _PASSED | os.O_NOFOLLOW, dir_fd=stack[-1]))
            except OSError as error:
                target = _link_there(stack[-1], part)
                links += 1
                if target is None:
                    raise
                if links > LINKS:
                    raise _failure(errno.ELOOP, path) from error
                todo.extendleft(reversed(_parts(_relative(target))))
        return os.open(".", flags, dir_fd=stack[-1])
    finally:
        for fd in stack:
            os.close(fd)


def _link_there(fd: int, name: str) -> str | None:
    with suppress(OSError):
        return os.readlink(name, dir_fd=fd)
    return None


class _How(ctypes.Structure):
    """`struct open_how` of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _has_openat2() -> bool:
    """Linux 5.6, unless a sandbox forbids it."""
    if sys.platform != "linux":
        return False
    fd = os.open("/", _PASSED)
    try:
        os.close(_openat2(fd, ".", _PASSED))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _openat2(base: int, path: str, flags: int) -> int:
    how = _How(flags, 0, _BENEATH | _NO_MAGICLINKS)
    size = ctypes.sizeof(how)
    fd: int = _libc().syscall(_OPENAT2, base, os.fsencode(path), ctypes.byref(how), size)
    if fd < 0:
        raise _failure(ctypes.get_errno(), path)
    return fd


def _by_kernel(base: int, path: str, flags: int) -> int:
    """EAGAIN: something was renamed just then, and the path has a `..` (openat2(2))."""
    for _ in range(_AGAIN):
        try:
            return _openat2(base, path, flags)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise Outside(path) from error
            if error.errno != errno.EAGAIN:
                raise
    return _by_hand(base, path, flags)


def _path_of(fd: int, base: str) -> str:
    """The path of an open directory, as the kernel has it."""
    if sys.platform == "darwin":
        return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # no /proc
        return os.path.realpath(base)


def _failure(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
