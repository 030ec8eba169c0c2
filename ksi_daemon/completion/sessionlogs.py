"""The sessions' logs on the side that never blocks: the newest stay open, all share one writer thread."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from ksi_daemon.completion.answers import OPEN_LOGS, session_log
from ksi_daemon.errors import ComponentClosed
from ksi_daemon.groupcommit import GroupCommit
from ksi_daemon.linefile import LineFile

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.lane import Lane
    from ksi_daemon.site import Durability, Site


class _SessionFile(LineFile):
    """A log that is opened, and its torn tail mended, on the writer's thread before its first line."""

    def __init__(self, path: Path, component: str) -> None:
        super().__init__(path, component)
        self._opened = False

    def append(self, data: bytes, durability: Durability = "os") -> None:
        """As of every log."""
        if not self._opened:
            self.open()
            self._opened = True
        super().append(data, durability)


class _Log:
    """One session's log, and how many callers it has."""

    __slots__ = ("callers", "commit", "file")

    def __init__(self, file: LineFile, commit: GroupCommit) -> None:
        self.file = file
        self.commit = commit
        self.callers = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of it is waiting or being written."""
        return not self.callers and self.commit.pending() is None


class SessionLogs:
    """Appends by session. Its methods belong to the loop's thread."""

    def __init__(self, site: Site, lane: Lane) -> None:
        self._site = site
        self._lane = lane
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._closed = False

    async def append(self, session: str, line: bytes) -> None:
        """Add one whole line to a session's log. Raises what `GroupCommit.append` raises."""
        log = self._log(session)
        log.callers += 1
        try:
            await log.commit.append(line)
        finally:
            log.callers -= 1

    async def close(self) -> bool:
        """Flush and close every log; False when the disk hangs."""
        self._closed = True
        return all(await asyncio.gather(*(log.commit.close() for log in self._logs.values())))

    def pending(self) -> str | None:
        """What is being written, in words, or None."""
        return next((told for log in self._logs.values() if (told := log.commit.pending())), None)

    def _log(self, session: str) -> _Log:
        log = self._logs.get(session)
        if log is None:
            if self._closed:
                raise ComponentClosed(self._site.component)
            file = _SessionFile(session_log(self._site.settings, session), self._site.component)
            self._let_go()
            log = self._logs[session] = _Log(file, GroupCommit(file, self._site, self._lane))
        self._logs.move_to_end(session)
        return log

    def _let_go(self) -> None:
        """Make room for one more: close the logs that have waited longest for a line and are idle.

        The writer does that in its turn, so a log that is opened again is opened after it was closed.
        """
        surplus = len(self._logs) + 1 - OPEN_LOGS
        for session in [session for session, log in self._logs.items() if log.idle][: max(0, surplus)]:
            self._lane.submit(self._logs.pop(session).file.close, lambda _result, _error: None)
