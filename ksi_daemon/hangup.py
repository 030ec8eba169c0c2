"""Whether a client that sends no more has gone, or only sends no more and still reads."""

from __future__ import annotations

import select
from typing import Final, Protocol

LOOK: Final = 0.1
"""Seconds between two looks: the loop tells nothing more after the end of what a client sends."""


class Socket(Protocol):
    """What can be looked at."""

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""


def has_hung_up(sock: Socket | None) -> bool:
    """Whether the other end is closed altogether (POLLHUP); a half-close is not. Does not wait."""
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(seen & (select.POLLHUP | select.POLLERR) for _, seen in poll.poll(0))
