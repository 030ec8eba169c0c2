"""The usage log as it was: opened, written and closed for each record, read in one go at start."""

from collections.abc import Callable

from ksi_daemon.completion.core import log_path
from ksi_daemon.errors import IoFailed
from ksi_daemon.linefile import LineFile, sync_to_disk
from ksi_daemon.linesplitter import LineSplitter
from ksi_daemon.site import Site


class SyncUsageLog:
    """The control. A failed append is cut back out of the file and raised."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = log_path(site.settings)
        self._file = LineFile(self._path, site.component)
        self._end = 0

    def open(self) -> None:
        """Mend a torn tail and note where the log ends; nothing is kept open."""
        self._file.open()
        self._end = self._file.end
        self._file.close()

    def close(self) -> None:
        """Nothing is open between two calls."""

    def append(self, line: bytes) -> None:
        """Open, write, close."""
        try:
            with open(self._path, "a", encoding="utf-8", newline="", opener=self._file.opener) as log:
                log.write(line.decode())
                if self._site.durability == "fsync":
                    log.flush()
                    sync_to_disk(log.fileno())
        except OSError as error:
            raise self._file.take_back(line, error) from error
        self._file.wrote(line)

    def load(self, take: Callable[[bytes], None]) -> None:
        """Read the whole log on the loop's thread, a MiB at a time."""
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
