"""Notices every change of flags.yaml and of the ceilings, and delivers the last content within a second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from ksi_daemon.flags import Component, Flags, FlagsInvalid, parse, read
from ksi_daemon.lane import Lane
from ksi_daemon.registry import AREAS
from ksi_daemon.stages import CEILINGS, Ceilings, StagesInvalid, bytes_of, digest, parse_ceilings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

POLL: Final = 0.25
"""Seconds between two readings when nothing is heard from the file system."""
QUIET: Final = 0.1
"""Seconds between two readings at least, however often the files are written."""
PATIENCE: Final = 2.0
"""Seconds after which a file that cannot be read to its end is reported as such."""

_STUCK = f"has not answered for {PATIENCE:g} s; look after its disk"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """Both files as one reading found them; the bytes are empty where there were none to read."""

    flags_bytes: bytes
    flags: Flags | FlagsInvalid
    ceilings_bytes: bytes
    ceilings: Ceilings | StagesInvalid

    @property
    def digest(self) -> str:
        """What `state.json` records as the source of the stages in force."""
        return digest(self.flags_bytes, self.ceilings_bytes)


class FlagsWatch:
    """An async iterator of `Seen`: the first at once, then one for each change of either file's content.

    Content is compared, so an edit that keeps size and time is noticed, and a rewrite with the same bytes is
    not. File events only make it faster; the poll alone is enough. Each file has a thread of its own for
    reading and validating: a dead disk under flags.yaml hides no ceiling, and blocks neither loop nor close.
    One iteration at a time.
    """

    def __init__(
        self,
        flags_path: Path,
        migrate_dir: Path,
        *,
        areas: Sequence[Component] = AREAS,
        events: bool = True,
        poll: float = POLL,
    ) -> None:
        loop = asyncio.get_running_loop()
        ceilings = migrate_dir / CEILINGS
        self._flags = _Sight(
            "flags",
            partial(read, flags_path),
            partial(parse, areas=areas, path=flags_path),
            FlagsInvalid(flags_path, 0, _STUCK),
        )
        self._ceilings = _Sight(
            "ceilings",
            partial(bytes_of, ceilings),
            partial(parse_ceilings, path=ceilings),
            StagesInvalid(ceilings, _STUCK),
        )
        self._poll = poll
        self._wake = asyncio.Event()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._nudged = True
        self._last: tuple[object, ...] = ()
        self._next = 0.0
        self._events = _Events((flags_path, ceilings), self._wake.set) if events else None

    def nudge(self) -> None:
        """Read at once and deliver what is there, also when it did not change (SIGHUP)."""
        self._nudged = True
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Seen:
        while not self._closed.done():
            await self._pause()
            if self._closed.done():
                break
            nudged, self._nudged = self._nudged, False
            seen = await self._look()
            if seen is None:
                break
            known = _content(seen)
            if nudged or known != self._last:
                self._last = known
                return seen
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the iteration and the threads; a reading that hangs is left behind after half a second."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._wake.set()
        ends = [self._flags.close(), self._ceilings.close()]
        if self._events is not None:
            ends.append(self._events.close())
        await asyncio.gather(*ends)

    async def _pause(self) -> None:
        """Until something is heard or the poll is due, and never sooner than `QUIET` after the last look."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next + self._poll):
                await self._wake.wait()
        early = self._next + QUIET - loop.time()
        if early > 0:
            await asyncio.wait([self._closed], timeout=early)
        self._wake.clear()
        self._next = loop.time()

    async def _look(self) -> Seen | None:
        both = asyncio.gather(self._flags.look(self._closed), self._ceilings.look(self._closed))
        flags, ceilings = await both
        return None if self._closed.done() else Seen(*flags, *ceilings)


class _Sight:
    """One file, the thread that reads it, and a reading that may still be under way."""

    def __init__(
        self,
        name: str,
        read_bytes: Callable[[], bytes | None],
        parse_bytes: Callable[[Any], Any],
        stuck: FlagsInvalid | StagesInvalid,
    ) -> None:
        self._lane = Lane(f"ksi-watch-{name}")
        self._read = read_bytes
        self._parse = parse_bytes
        self._stuck = stuck
        self._pending: asyncio.Future[Any] | None = None
        self._since = 0.0
        self._known: tuple[bytes | None, Any] | None = None

    async def look(self, closed: asyncio.Future[None]) -> tuple[bytes, Any]:
        """The bytes and what they mean, or `stuck` while a reading goes on for longer than `PATIENCE`."""
        loop = asyncio.get_running_loop()
        if self._pending is None:
            self._pending, self._since = loop.create_future(), loop.time()
            self._lane.submit(self._see, partial(_finish, self._pending))
        pending, patience = self._pending, max(0.0, self._since + PATIENCE - loop.time())
        await asyncio.wait([pending, closed], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not pending.done():
            return b"", self._stuck
        self._pending = None
        data, meaning = pending.result()
        return data or b"", meaning

    async def close(self) -> None:
        """Wait half a second at most: a thread that hangs is left to end with the process."""
        await self._lane.close(0.5)

    def _see(self) -> tuple[bytes | None, Any]:
        """On the lane's thread. The same bytes are not parsed twice: 64 KiB of junk take 0.1 s."""
        try:
            data = self._read()
        except (FlagsInvalid, StagesInvalid) as error:
            self._known = None
            return b"", error
        if self._known is None or self._known[0] != data:
            self._known = data, self._meaning(data)
        return self._known

    def _meaning(self, data: bytes | None) -> Any:
        try:
            return self._parse(data)
        except (FlagsInvalid, StagesInvalid) as error:
            return error


class _Events:
    """File events of the directories (an atomic replace makes a new file), told to the loop from a thread."""

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None]) -> None:
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._lane = Lane("ksi-watch-events")
        self._lane.submit(partial(self._listen, paths), self._ended)

    async def close(self) -> None:
        self._stop.set()
        await self._lane.close(0.5)

    def _listen(self, paths: Sequence[Path]) -> None:
        from watchfiles import watch  # noqa: PLC0415 - not loaded where file events are off

        names = {path.name for path in paths}
        folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
        changes = watch(
            *folders,
            watch_filter=lambda _, path: os.path.basename(path) in names,
            debounce=int(QUIET * 1000),
            stop_event=self._stop,
            recursive=False,
        )
        for _ in changes:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._changed)

    def _ended(self, _: object, error: Exception | None) -> None:
        if error is not None:
            _log.warning("file events are off; flags are polled", error=str(error), seconds=POLL)


def _finish(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _content(seen: Seen) -> tuple[object, ...]:
    flags = str(seen.flags) if isinstance(seen.flags, FlagsInvalid) else ""
    ceilings = str(seen.ceilings) if isinstance(seen.ceilings, StagesInvalid) else ""
    return seen.flags_bytes, flags, seen.ceilings_bytes, ceilings
