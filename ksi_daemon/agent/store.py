"""What both sides of the identity store do with its file: read it, set a broken one aside. Blocks."""

from __future__ import annotations

import errno
import gc
import os
import time
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon.agent import core
from ksi_daemon.errors import IoFailed, OutcomeUnknown
from ksi_daemon.linefile import private_directory
from ksi_daemon.replace import NotSynced, only_regular, replace_by, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from ksi_daemon.site import Site

log = structlog.get_logger("ksi.agent")

PREFIX = "identities."
"""Begins the names of the temporary files, after a dot."""

LARGE = 1024 * 1024
"""Bytes of a file from which on the collector would be felt."""

LONGEST_NAME = 255
"""Bytes that a file name may have on every file system that we know (NAME_MAX)."""


class Store:
    """The file of one site; `path` is where it lies."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.path: Path = core.storage_path(site.settings)

    def open(self) -> None:
        """Remove what a crash has left beside the file."""
        sweep(self.path.parent, PREFIX)

    def read(self, decode: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
        """The identities; {} when there is no file, or none that can be understood: that is set aside.

        Raises `IoFailed`.
        """
        try:
            only_regular(self.path)
            with open(self.path, "rb", opener=_opener) as file:
                data = file.read()
                which = os.fstat(file.fileno())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._failed("read", error) from error
        try:
            return decode(data)
        except (ValueError, RecursionError) as error:
            self._set_aside(which, str(error))
            return {}

    def replace(self, write: Callable[[int], None], wanted: Callable[[], bool] = lambda: True) -> None:
        """Put new content in the file's place. Raises `IoFailed`, `OutcomeUnknown`, `replace.Abandoned`."""
        try:
            only_regular(self.path)
            private_directory(self.path.parent)
            replace_by(self.path, write, durability=self._site.durability, prefix=PREFIX, wanted=wanted)
        except NotSynced as error:
            raise OutcomeUnknown(self._site.component, f"replace {self.path}", error) from error
        except OSError as error:
            raise self._failed("replace", error) from error

    def _set_aside(self, which: os.stat_result, why: str) -> None:
        """Rename a file that cannot be understood, so that nothing is ever written over it."""
        try:
            if _version(which) != _version(os.lstat(self.path)):
                raise OSError(errno.EBUSY, "somebody has just replaced it")  # noqa: TRY301 - as any other
            aside = self._free_name()
            os.rename(self.path, aside)
        except OSError as error:
            raise self._failed("set aside", error) from error
        log.error("identities cannot be understood and were set aside", path=aside, reason=why)

    def _free_name(self) -> str:
        """The file's name with the time behind it, cut where it would be too long, and not yet taken."""
        now = datetime.fromtimestamp(self._site.clock(), UTC)
        stamp, number = f".corrupt-{now:%Y%m%dT%H%M%SZ}", 0
        while True:
            ending = f"{stamp}-{number}" if number else stamp
            name = os.fsencode(self.path.name)[: LONGEST_NAME - len(ending)].decode(errors="ignore")
            aside = os.path.join(self.path.parent, name + ending)
            if not os.path.lexists(aside):
                return aside
            number += 1

    def _failed(self, what: str, error: OSError) -> IoFailed:
        return IoFailed(self._site.component, f"{what} {self.path}", error)


def _version(found: os.stat_result) -> tuple[int, ...]:
    """Which content of which file: the number of a removed file is soon another one's."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _opener(path: str, flags: int) -> int:
    """Never through a link, and never waiting for the other end of a FIFO, whoever put one there."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def decode_politely(data: bytes) -> dict[str, Any]:
    """Decode a large file without holding the interpreter for long, if it is laid out as we write it."""
    with uncollected() if len(data) > LARGE else nullcontext():
        with suppress(ValueError, RecursionError):
            return _in_pieces(data)
        return core.decode(data)


def _in_pieces(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for piece in core.decode_in_pieces(data):
        found.update(piece)
        time.sleep(0)  # lets others have the interpreter
    return found


@contextmanager
def uncollected() -> Generator[None]:
    """Keep the cycle collector off what is made within, for good: each pass over it would take 50 ms."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
