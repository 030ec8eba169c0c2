"""All that the completion service knows of its logs."""

from collections.abc import Callable
from typing import Protocol


class CompletionLog(Protocol):
    """The log of token usage, and a log for each session."""

    async def append(self, line: bytes) -> None:
        """Add one encoded usage record with its newline; when it returns the line is in the file.

        Raises `IoFailed` (nothing was kept), `OutcomeUnknown`, `ComponentBusy`, `ComponentClosed`.
        """

    async def append_session(self, session: str, line: bytes) -> None:
        """Add one encoded answer to the log of its session, a UUID. Order and errors as for `append`."""

    async def load(self, take: Callable[[bytes], None]) -> None:
        """Give every usage line that was there when the side was opened to `take`, in order, no newline.

        Lines over 16 MiB are passed over. A missing log has no lines. Raises `IoFailed`.
        """
