"""All that the message bus knows of its log."""

from typing import Protocol


class BusLog(Protocol):
    """The log of published messages."""

    async def append(self, line: bytes) -> None:
        """Add one encoded record with its newline; when it returns the line is in the file.

        Raises `IoFailed` (nothing was kept), `OutcomeUnknown`, `ComponentBusy`, `ComponentClosed`.
        """
