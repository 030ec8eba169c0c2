"""Matches on their way to one client, a few at each turn of the loop, and no faster than it reads."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.discovery.core import Match
    from ksi_daemon.router import Client

SLICE: Final = 8
"""Frames that are sent before others get their turn: each is a call of the kernel, and many may stream."""


class Frames:
    """The frames of one search, made by `encode`; `end` in any case."""

    def __init__(self, client: Client, encode: Callable[[Match], bytes]) -> None:
        self._client = client
        self._encode = encode
        self._waiting: deque[Match] = deque()
        self._sending: asyncio.Task[None] | None = None

    def add(self, match: Match) -> None:
        """Send this one, too."""
        self._waiting.append(match)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def sent(self) -> None:
        """Wait until all are on their way."""
        if self._sending is not None:
            await self._sending

    def end(self) -> None:
        """Send no more."""
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self) -> None:
        while self._waiting:
            await self._client.writable()
            for _ in range(min(SLICE, len(self._waiting))):
                self._client.send(self._encode(self._waiting.popleft()))
            await asyncio.sleep(0)
