"""What clients see of all conversations until the next refresh: ordered, filtered, counted. No I/O."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ksi_daemon.conversation.core import utc
from ksi_daemon.conversation.ordering import sorted_in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksi_daemon.conversation.core import Summary

Row = dict[str, Any]

KEYS = {
    "last_timestamp": lambda row: row.last or "",
    "first_timestamp": lambda row: row.first or "",
    "message_count": lambda row: row.messages,
}
"""What can be sorted by; texts as texts, and no stamp as an empty one. Anything else is the first of them."""


class Totals(NamedTuple):
    """All conversations together; stamps are compared as texts."""

    messages: int
    size: int
    skipped: int
    earliest: str | None
    latest: str | None


class Catalogue:
    """The summaries of one refresh; what is made of them is made once."""

    def __init__(self, rows: tuple[Summary, ...] = ()) -> None:
        self.rows = rows
        self._ordered: dict[tuple[str, bool], asyncio.Task[list[Summary]]] = {}

    async def ordered(self, by: str, *, reverse: bool) -> Sequence[Summary]:
        """All of them, sorted stably; those that are equal are in the order of their ids."""
        by = by if by in KEYS else "last_timestamp"
        if (by, reverse) not in self._ordered:  # once, for all who ask meanwhile; a caller may go
            sorting = sorted_in_turns(self.rows, KEYS[by], reverse=reverse)
            self._ordered[by, reverse] = asyncio.create_task(sorting)
        return await asyncio.shield(self._ordered[by, reverse])

    @cached_property
    def by_session(self) -> dict[str, Summary]:
        """The summaries by session."""
        return {row.session: row for row in self.rows}

    @cached_property
    def totals(self) -> Totals:
        """The sums, and the first and the last stamp of all."""
        stamps = [stamp for row in self.rows for stamp in (row.first, row.last) if stamp]
        return Totals(
            sum(row.messages for row in self.rows),
            sum(row.size for row in self.rows),
            sum(row.skipped for row in self.rows),
            min(stamps, default=None),
            max(stamps, default=None),
        )


def between(rows: Sequence[Summary], start: str | None, end: str | None) -> Sequence[Summary]:
    """Those whose last stamp is within; one without a stamp is not, and none is when a date is no date.

    Raises `TypeError` where a time with a zone meets one without.
    """
    if not start and not end:
        return rows
    try:
        first, last = (datetime.fromisoformat(date) if date else None for date in (start, end))
    except ValueError:
        return ()
    return [row for row in rows if row.last and _is_within(datetime.fromisoformat(row.last), first, last)]


def _is_within(time: datetime, first: datetime | None, last: datetime | None) -> bool:
    return (first is None or time >= first) and (last is None or time <= last)


def shown(row: Summary, path: str) -> Row:
    """A conversation as replies show it; `path` is its log's."""
    return {
        "session_id": row.session,
        "file_path": path,
        "size_bytes": row.size,
        "modified_timestamp": utc(row.modified),
        "message_count": row.messages,
        "first_timestamp": row.first,
        "last_timestamp": row.last,
        "participants": list(row.participants),
        "has_claude": row.has_claude,
        "has_user": row.has_user,
    }
