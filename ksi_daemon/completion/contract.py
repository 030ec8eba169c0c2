"""All that the token usage service knows of its log."""

from collections.abc import Callable
from typing import Protocol


class UsageLog(Protocol):
    """The log of token usage."""

    async def append(self, line: bytes) -> None:
        """Add one encoded record with its newline; when it returns the line is in the file.

        Raises `IoFailed` (nothing was kept), `OutcomeUnknown`, `ComponentBusy`, `ComponentClosed`.
        """

    async def load(self, take: Callable[[bytes], None]) -> None:
        """Give every line that was in the log when the side was opened to `take`, in order, without newline.

        Lines over 16 MiB are passed over. A missing log has no lines. Raises `IoFailed`.
        """
