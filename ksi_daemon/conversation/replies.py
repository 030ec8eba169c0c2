"""Large replies: encoded a few rows at a time, so that others get their turn, and bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.conversation.failures import ReplyTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

AT_ONCE = 200
"""Rows that are encoded in one go."""


async def array(rows: Iterable[Any], most: int) -> orjson.Fragment:
    """The rows as one JSON array of at most `most` bytes. Raises `ReplyTooLarge`."""
    parts, some, size = list[bytes](), list[Any](), 0
    for row in rows:
        some.append(row)
        if len(some) == AT_ONCE:
            parts.append(orjson.dumps(some)[1:-1])
            size += len(parts[-1])
            if size > most:
                break
            some = []
            await asyncio.sleep(0)
    if some:
        parts.append(orjson.dumps(some)[1:-1])
        size += len(parts[-1])
    if size > most:
        raise ReplyTooLarge(most)
    return orjson.Fragment(b"[" + b",".join(parts) + b"]")
