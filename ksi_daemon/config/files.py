"""The files of configuration: reached beneath their base, read whole, locked one by one. Blocks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ksi_daemon.beneath import Outside, reach
from ksi_daemon.config.errors import NoFile, PathRefused, TooLarge, failed
from ksi_daemon.errors import ComponentBusy
from ksi_daemon.linefile import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ksi_daemon.beneath import Spot
    from ksi_daemon.config.core import Place, Target

LOADING: Final = "Failed to load config"
"""The original's words for a file that cannot be read."""

_REFUSED: Final = frozenset({errno.ENAMETOOLONG, errno.ELOOP})
_TEMPORARY: Final = re.compile(r"\..*[0-9a-f]{16}\.tmp")
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_PAUSE: Final = 0.002


@contextmanager
def spot(target: Target, *, make: bool = False) -> Iterator[Spot]:
    """Where the file of a request lies; `make` makes the directories that are missing on the way.

    Raises `PathRefused`, and `OSError` as `reach` does.
    """
    with ExitStack() as stack:
        try:
            found = stack.enter_context(reach(target.base, target.path, make=make))
        except Outside as error:
            raise PathRefused(target.path) from error
        except OSError as error:
            if error.errno in _REFUSED:
                raise PathRefused(target.path) from error
            raise
        yield found


@contextmanager
def existing(place: Place, target: Target, words: str = LOADING) -> Iterator[Spot]:
    """As `spot`, for a file that has to be there. Raises `NoFile`, `PathRefused`, `Failed`."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(spot(target))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NoFile from error
        except OSError as error:
            raise failed(place.component, words, f"open {target.path}", error) from error
        yield found


def guard(place: Place, found: Spot, target: Target) -> None:
    """Refuse what no request writes, whatever path leads there. Raises `PathRefused`."""
    guarded, open_ = _nearest(place.guarded, found.path), _nearest(place.open, found.path)
    if guarded > open_ or _TEMPORARY.fullmatch(found.name):
        raise PathRefused(target.path)


def _nearest(places: tuple[str, ...], path: str) -> int:
    """How near the nearest of the places is that hold the path; 0 if none does."""
    return max((len(place) for place in map(os.path.realpath, places) if _holds(place, path)), default=0)


def _holds(outer: str, path: str) -> bool:
    """Whether they are the same, or one lies below the other; in any case of letters, as on macOS."""
    outer, path = outer.casefold(), path.casefold()
    return path == outer or path.startswith(outer.rstrip("/") + "/")


def read(
    place: Place, found: Spot, words: str = LOADING, most: int | None = None
) -> tuple[bytes, os.stat_result]:
    """The whole file, and what it was just before. Raises `NoFile`, `TooLarge`, `Failed`."""
    try:
        with open(found.open(), "rb", buffering=0) as file:
            which = os.fstat(file.fileno())
            return read_all(file.fileno(), which, most or place.most_bytes), which
    except FileNotFoundError as error:
        raise NoFile from error
    except OSError as error:
        raise failed(place.component, words, f"read {found.path}", error) from error


def read_all(fd: int, which: os.stat_result, most_bytes: int) -> bytes:
    """Every byte of an open file. Raises `TooLarge`, `OSError`."""
    parts: list[bytes] = []
    size = which.st_size
    while size <= most_bytes and (part := os.read(fd, max(1, min(which.st_size, 1 << 20)) + 1)):
        parts.append(part)
        size = max(which.st_size, sum(map(len, parts)))
    if size > most_bytes:
        raise TooLarge(f"configuration file is over {most_bytes} bytes; see KSI_CONFIG_MAX_BYTES")
    return b"".join(parts)


def prefix(path: str) -> str:
    """Begins the names of a file's temporary ones, after a dot: whoever holds its lock may remove them."""
    return f"config.{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}."


@contextmanager
def locked(place: Place, what: str, pulse: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file, or of another thing by name, against every process.

    The kernel lets go of it when the holder dies. Raises `ComponentBusy` after `patience_s`, `OSError`.
    """
    private_directory(Path(place.locks))
    name = hashlib.sha256(os.fsencode(what)).hexdigest()[:32]
    fd = os.open(os.path.join(place.locks, name), _LOCK, 0o600)
    try:
        _wait_for(fd, place, pulse)
        yield
    finally:
        os.close(fd)


def _wait_for(fd: int, place: Place, pulse: Callable[[], None]) -> None:
    until = time.monotonic() + place.patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise ComponentBusy(place.component, place.patience_s) from None
        else:
            return
        pulse()
        time.sleep(_PAUSE)
