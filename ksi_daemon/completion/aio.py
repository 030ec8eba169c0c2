"""The logs that never block: group commit on one writer thread, and a history read in small pieces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiofiles

from ksi_daemon.completion.core import log_path
from ksi_daemon.completion.sessionlogs import SessionLogs
from ksi_daemon.errors import IoFailed
from ksi_daemon.groupcommit import GroupCommit
from ksi_daemon.lane import Lane, LaneExecutor
from ksi_daemon.linefile import LineFile
from ksi_daemon.linesplitter import LineSplitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiofiles.threadpool.binary import AsyncBufferedReader

    from ksi_daemon.site import Site

PIECE = 32 * 1024
"""Bytes of history that the loop takes in at a time: about 100 lines, well under a millisecond."""


CLOSE = 0.5
"""Seconds that a reader has for its end."""


class AsyncCompletionLog:
    """The candidate. Needs a running loop from `open` on."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = log_path(site.settings)
        self._lane: Lane
        self._commit: GroupCommit
        self._sessions: SessionLogs
        self._end = 0

    async def open(self) -> None:
        """Start the writer, open the usage log, mend a torn tail, note where it ends."""
        file = LineFile(self._path, self._site.component)
        self._lane = Lane(f"ksi-{self._site.component}-writer")
        self._commit = GroupCommit(file, self._site, self._lane)
        self._sessions = SessionLogs(self._site, self._lane)
        try:
            await self._commit.open()
        except IoFailed:
            await self._lane.close(0.0)
            raise
        self._end = file.end

    async def close(self) -> None:
        """Write what is waiting, then let go of the files and the writer."""
        flushed = all(await asyncio.gather(self._commit.close(), self._sessions.close()))
        await self._lane.close(self._site.settings.stop_timeout if flushed else 0.0)

    def pending(self) -> str | None:
        """What is being written, in words, or None."""
        return self._commit.pending() or self._sessions.pending()

    async def append(self, line: bytes) -> None:
        """Wait for the batch that holds the line."""
        await self._commit.append(line)

    async def append_session(self, session: str, line: bytes) -> None:
        """Wait for the batch of that session that holds the line."""
        await self._sessions.append(session, line)

    async def load(self, take: Callable[[bytes], None]) -> None:
        """Read off the loop, a piece at a time; the loop is free between two pieces."""
        reader = Lane(f"ksi-{self._site.component}-reader")
        try:
            log = await aiofiles.open(self._path, "rb", executor=LaneExecutor(reader))
            try:
                await self._read(log, take)
            finally:
                await log.close()  # `async with` would close on the loop's default executor (aiofiles 25.1)
        except FileNotFoundError:
            return
        except OSError as error:
            raise IoFailed(self._site.component, f"read {self._path}", error) from error
        finally:
            await reader.close(CLOSE)

    async def _read(self, log: AsyncBufferedReader, take: Callable[[bytes], None]) -> None:
        lines = LineSplitter(self._end)
        while piece := await log.read(PIECE):
            for line in lines.feed(piece):
                take(line)
