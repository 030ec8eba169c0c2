"""The usage log that never blocks: group commit, and a history that is read in small pieces."""

from collections.abc import Callable

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

from ksi_daemon.completion.core import log_path
from ksi_daemon.errors import IoFailed
from ksi_daemon.groupcommit import GroupCommit
from ksi_daemon.lane import Lane, LaneExecutor
from ksi_daemon.linefile import LineFile
from ksi_daemon.linesplitter import LineSplitter
from ksi_daemon.site import Site

PIECE = 32 * 1024
"""Bytes of history that the loop takes in at a time: about 100 lines, well under a millisecond."""


CLOSE = 0.5
"""Seconds that a reader has for its end."""


class AsyncUsageLog:
    """The candidate. Needs a running loop from `open` on."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = log_path(site.settings)
        self._commit: GroupCommit
        self._end = 0

    async def open(self) -> None:
        """Start the writer, open the log, mend a torn tail, note where it ends."""
        file = LineFile(self._path, self._site.component)
        self._commit = GroupCommit(file, self._site)
        await self._commit.open()
        self._end = file.end

    async def close(self) -> None:
        """Write what is waiting, then let go of the file and the writer."""
        await self._commit.close()

    def pending(self) -> str | None:
        """What is being written, in words, or None."""
        return self._commit.pending()

    async def append(self, line: bytes) -> None:
        """Wait for the batch that holds the line."""
        await self._commit.append(line)

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
