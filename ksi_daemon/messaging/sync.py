"""The bus log as it was: opened, written and closed for each message, on the loop's thread."""

from ksi_daemon.linefile import LineFile, sync_to_disk
from ksi_daemon.messaging.core import log_path
from ksi_daemon.site import Site


class SyncBusLog:
    """The control. A failed append is cut back out of the file and raised."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = log_path(site.settings)
        self._file = LineFile(self._path, site.component)

    def open(self) -> None:
        """Mend a torn tail; nothing is kept open."""
        self._file.open()
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
