"""All that the conversation service knows of how logs are read and exports written."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ksi_daemon.conversation.core import Exported, Found, Order, Page, Summary, Wanted, Which


class Progress(NamedTuple):
    """How far a scan is: files done, of how many; of those that were read, and those that are gone."""

    done: int
    total: int
    read: int = 0
    removed: int = 0


Told = Callable[[Progress], None]


class ConversationStore(Protocol):
    """The sessions' logs of one directory, the bus's log beside them, and the exports."""

    async def refresh(self, told: "Told | None") -> tuple[Summary, ...]:
        """What every session's log holds now, sorted by session; a missing directory holds none.

        `told` hears of the progress, at the end in any case. A file that cannot be read is left out. The same
        object comes again as long as nothing has changed, if the side can tell. Raises `IoFailed` when the
        directory cannot be listed.
        """

    async def search(self, among: Sequence[Summary], wanted: Wanted) -> tuple[Found, ...]:
        """The first `wanted.limit` of the conversations that match, in their order.

        A log that is gone or cannot be read matches nothing. Raises `IoFailed` for the directory.
        """

    async def read(self, which: Which) -> Page | None:
        """One page of a log's messages, in the order of their stamps; None when there is no such log.

        Raises `IoFailed`, `ReplyTooLarge`.
        """

    async def export(self, order: Order) -> Exported | None:
        """Write a session's messages to a file of their own; None when there is no such log.

        When it returns the file is whole and in its place; it never replaces another. Raises `IoFailed`. A
        cancelled caller still waits for the outcome and gets it with its `CancelledTooLate`.
        """

    async def active(self, lines: int, since: float) -> bytes | None:
        """The sessions that the last `lines` lines of the bus's log tell of, as JSON; None without a log.

        What is older than `since` (epoch seconds) does not count. Raises `IoFailed`.
        """
