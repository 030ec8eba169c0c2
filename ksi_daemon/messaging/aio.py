"""The bus log that never blocks: group commit on a long-open handle."""

from ksi_daemon.groupcommit import GroupCommit
from ksi_daemon.linefile import LineFile
from ksi_daemon.messaging.core import log_path
from ksi_daemon.site import Site


class AsyncBusLog:
    """The candidate. Needs a running loop from `open` on."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._commit: GroupCommit

    async def open(self) -> None:
        """Start the writer, open the log, mend a torn tail."""
        self._commit = GroupCommit(LineFile(log_path(self._site.settings), self._site.component), self._site)
        await self._commit.open()

    async def close(self) -> None:
        """Write what is waiting, then let go of the file and the writer."""
        await self._commit.close()

    def pending(self) -> str | None:
        """What is being written, in words, or None."""
        return self._commit.pending()

    async def append(self, line: bytes) -> None:
        """Wait for the batch that holds the line."""
        await self._commit.append(line)
