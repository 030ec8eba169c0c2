"""What was counted of one log, and from where to count on. Blocks."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ksi_daemon import filetimes
from ksi_daemon.conversation import quicklines
from ksi_daemon.conversation.core import Counts, Tally, summary
from ksi_daemon.conversation.logfile import BLOCK, Seen, blocks, log_of, open_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.conversation.core import Summary

PRINTED = 2048
"""Bytes at the beginning and at the end of what was counted that are looked at again before counting on."""

SMALL = 64 * 1024
"""Bytes up to which what was counted is simply read again, when anything about its log is new."""

Kept = tuple[Any, ...]
"""A `Counted` as plain values: cheap to send, to compare and to save, since there may be many."""


class Counted(NamedTuple):
    """A log as it was read: its first `offset` bytes are `done`, `whole` has the rest, too.

    `print_` is of those bytes, and empty for the few of a small log.

    Not `settled`: it may have changed since without another size or time.
    """

    seen: Seen
    settled: bool
    offset: int
    print_: str
    done: Counts
    whole: Counts

    def kept(self) -> Kept:
        """The same as plain values."""
        whole = None if self.whole == self.done else tuple(self.whole)
        return (tuple(self.seen), self.settled, self.offset, self.print_, tuple(self.done), whole)


def counted_of(kept: Kept) -> Counted:
    """What was kept."""
    seen_, settled, offset, print_, done, whole = kept
    counts = Counts._make(done)
    return Counted(
        Seen._make(seen_), settled, offset, print_, counts, counts if whole is None else Counts._make(whole)
    )


def summary_of(session: str, kept: Kept) -> Summary:
    """What is told of a log that was counted."""
    return summary(session, kept[0][2], kept[0][3], Counts._make(kept[5] or kept[4]))


def settled(kept: Kept) -> Any:
    """What must be seen of a log so that it need not be read again; None if it is read in any case."""
    return kept[0] if kept[1] else None


def left_to_read(kept: Kept | None, found: Seen) -> int:
    """About how many bytes a look at the log will read."""
    if kept is None or _is_other(known := counted_of(kept), found):
        return found.size
    return found.size - known.offset


def count(
    folder: str, session: str, kept: Kept | None, check: Callable[[], None]
) -> tuple[Counted, int] | None:
    """Count a log, from where the last time ended if that can be trusted, and the bytes read; None if gone.

    The rest of a log that grew is trusted when both ends of the part that was counted are as they were. What
    comes while it is read is left to the next time. Raises `OSError`.
    """
    try:
        fd, found = open_seen(log_of(folder, session))
    except FileNotFoundError:
        return None
    try:
        now = time.time_ns()
        start, tally = 0, Tally()
        if kept is not None and _goes_on(fd, known := counted_of(kept), found):
            start, tally = known.offset, Tally(known.done)
        if start == 0 and found.size <= BLOCK and (data := os.pread(fd, found.size, 0)).endswith(b"\n"):
            return _count_small(data, found, tally, now), found.size
        return _count(fd, found, start, tally, check, now), found.size - start
    finally:
        os.close(fd)


def _count_small(data: bytes, found: Seen, tally: Tally, now: int) -> Counted:
    """All at once, where nothing is left over at the end: that is most logs, and they are many."""
    quicklines.count(tally, data)
    done = tally.counts()
    return Counted(found, _is_settled(found, now), len(data), "", done, done)


def _count(fd: int, found: Seen, start: int, tally: Tally, check: Callable[[], None], now: int) -> Counted:
    offset, rest = start, b""
    for end, block in blocks(fd, start, found.size, check):
        if block.endswith(b"\n"):
            quicklines.count(tally, block)
            offset = end
        else:
            rest = block
    done = whole = tally.counts()
    if rest:
        tally.add_line(rest)
        whole = tally.counts()
    return Counted(found, _is_settled(found, now), offset, _print(fd, offset), done, whole)


def _is_other(known: Counted, found: Seen) -> bool:
    """Whether the log is another one, or the same with other bytes where some were counted."""
    if known.seen[:2] != found[:2] or found.size < max(known.offset, known.seen.size):
        return True
    return known.offset <= SMALL or (found.size == known.seen.size and known.seen != found)


def _goes_on(fd: int, known: Counted, found: Seen) -> bool:
    return not _is_other(known, found) and _print(fd, known.offset) == known.print_


def _is_settled(found: Seen, now: int) -> bool:
    return filetimes.settled(found.modified, found.changed, now)


def _print(fd: int, offset: int) -> str:
    """A digest of both ends of the first `offset` bytes; none of a few."""
    if offset <= SMALL:
        return ""
    ends = os.pread(fd, PRINTED, 0) + os.pread(fd, PRINTED, offset - PRINTED)
    return hashlib.sha1(ends, usedforsecurity=False).hexdigest()
