"""The logs as they were: opened, written and closed for each record, read in one go at start."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ksi_daemon.completion.answers import OPEN_LOGS, session_log
from ksi_daemon.completion.core import log_path
from ksi_daemon.errors import IoFailed
from ksi_daemon.linefile import LineFile, sync_to_disk
from ksi_daemon.linesplitter import LineSplitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.site import Site


class SyncCompletionLog:
    """The control. A failed append is cut back out of the file and raised."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = log_path(site.settings)
        self._file = LineFile(self._path, site.component)
        self._sessions: OrderedDict[str, LineFile] = OrderedDict()
        self._end = 0

    def open(self) -> None:
        """Mend a torn tail and note where the usage log ends; nothing is kept open."""
        self._sessions.clear()
        self._file.open()
        self._end = self._file.end
        self._file.close()

    def close(self) -> None:
        """Nothing is open between two calls."""

    def append(self, line: bytes) -> None:
        """Open, write, close."""
        self._append(self._file, line)

    def append_session(self, session: str, line: bytes) -> None:
        """Open, write, close; before a session's first line mend a torn tail."""
        self._append(self._session(session), line)

    def load(self, take: Callable[[bytes], None]) -> None:
        """Read the whole usage log on the loop's thread, a MiB at a time."""
        lines = LineSplitter(self._end)
        try:
            with open(self._path, "rb") as log:
                while piece := log.read(1024 * 1024):
                    for line in lines.feed(piece):
                        take(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise IoFailed(self._site.component, f"read {self._path}", error) from error

    def _append(self, file: LineFile, line: bytes) -> None:
        try:
            with open(file.path, "a", encoding="utf-8", newline="", opener=file.opener) as log:
                log.write(line.decode())
                if self._site.durability == "fsync":
                    log.flush()
                    sync_to_disk(log.fileno())
        except OSError as error:
            raise file.take_back(line, error) from error
        file.wrote(line)

    def _session(self, session: str) -> LineFile:
        """What is known of a session's log; nothing of it is open."""
        file = self._sessions.get(session)
        if file is None:
            file = LineFile(session_log(self._site.settings, session), self._site.component)
            file.open()
            file.close()
            self._sessions[session] = file
            if len(self._sessions) > OPEN_LOGS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(session)
        return file
