"""What the workers of the room do: plain functions of files, which know nothing of the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ksi_daemon.conversation import bus, exporting, finding, pages, scan
from ksi_daemon.conversation.core import Which

if TYPE_CHECKING:
    from ksi_daemon.conversation.core import Exported, Order
    from ksi_daemon.worker import Jobs, Turn

EXPORTED = 1 << 30
"""Characters that an export may hold."""


def export(turn: Turn, folder: str, exports: str, order: Order) -> Exported | None:
    """Read, render and write in one go; None when there is no such log. Raises `OSError`."""
    which = Which(order.session, 0, exporting.MOST, None, EXPORTED)
    found = pages.window(turn, folder, which)
    if found is None:
        return None
    return exporting.write(Path(exports), order, found.messages)


def clean(_turn: Turn, exports: str) -> None:
    """See `exporting.sweep`."""
    exporting.sweep(Path(exports))


def active(turn: Turn, folder: str, count: int, since: float) -> bytes | None:
    """See `bus.active`."""
    turn.check()
    return bus.active(folder, count, since)


JOBS: Jobs = {
    "refresh": scan.refresh,
    "read": scan.read,
    "settle": scan.settle,
    "keep": scan.keep,
    "find": finding.find,
    "page": pages.page,
    "export": export,
    "active": active,
    "clean": clean,
}
"""Each takes its turn, then plain values."""
