"""Whose turn it is: one session's turns one after another, different sessions side by side."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ksi_daemon.errors import ShuttingDown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

T = TypeVar("T")


class Place:
    """One turn's place in the order; `label` is what `claude_cli:status` tells of it."""

    def __init__(self, key: str, label: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self.key = key
        self.label = label
        self.since = loop.time()
        self.admitted: asyncio.Future[None] = loop.create_future()
        self._ended = False
        self._scopes: list[asyncio.Timeout] = []

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work()` gives. Raises `ShuttingDown` when `end` cut it off."""
        if self._ended:
            raise ShuttingDown
        try:
            async with asyncio.timeout(None) as at_once, asyncio.timeout(None) as soon:
                self._scopes = [at_once, soon]
                return await work()
        except TimeoutError:
            raise ShuttingDown from None
        finally:
            self._scopes = []

    def end(self) -> None:
        """Cancel the work; a second call cancels it again, which ends a side's patience."""
        self._ended = True
        if self._scopes:
            self._scopes.pop().reschedule(asyncio.get_running_loop().time())


class Order:
    """At most `limit` turns at once, one of each key; first come, first served among the keys' heads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: dict[str, deque[Place]] = {}
        self._ready: deque[Place] = deque()
        self._running: dict[Place, None] = {}
        self._idle = asyncio.Event()
        self._stopped = False

    @property
    def running(self) -> list[Place]:
        """The turns under way, in the order in which they began."""
        return list(self._running)

    @property
    def waiting(self) -> list[Place]:
        """The turns that wait, session by session."""
        return [place for line in self._lines.values() for place in line if place not in self._running]

    @asynccontextmanager
    async def place(self, key: str, label: dict[str, Any]) -> AsyncIterator[Place]:
        """Entered when it is this turn's turn; left, the next one's. Raises `ShuttingDown`."""
        if self._stopped:
            raise ShuttingDown
        place = Place(key, label)
        self._join(place)
        try:
            if not place.admitted.done():  # a free place is taken without a look at anybody else
                await place.admitted
            yield place
        finally:
            self._leave(place)

    async def stop(self, patience: float) -> None:
        """Refuse all who wait, and end what runs: asked first, and killed when patience is at its end."""
        self._stopped = True
        for place in self.waiting:
            if not place.admitted.done():  # cancelled just now
                place.admitted.set_exception(ShuttingDown())
        for _ in range(2):
            for place in self._running:
                place.end()
            if await self._emptied(patience):
                return

    async def _emptied(self, patience: float) -> bool:
        if not self._lines:
            return True
        self._idle.clear()
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except TimeoutError:
            return False
        return True

    def _join(self, place: Place) -> None:
        line = self._lines.setdefault(place.key, deque())
        line.append(place)
        if line[0] is place:
            self._ready.append(place)
            self._admit()

    def _leave(self, place: Place) -> None:
        line = self._lines[place.key]
        was_head = line[0] is place
        line.remove(place)
        if place in self._running:
            del self._running[place]
        elif was_head:
            self._ready.remove(place)
        if not line:
            del self._lines[place.key]
        elif was_head:
            self._ready.append(line[0])
        if not self._lines:
            self._idle.set()
        self._admit()

    def _admit(self) -> None:
        while self._ready and len(self._running) < self._limit and not self._stopped:
            place = self._ready.popleft()
            self._running[place] = None
            if not place.admitted.done():  # cancelled just now: it leaves at once
                place.admitted.set_result(None)
