"""Whose turn it is at a worker: one call after the other, in their order, as long as it goes on."""

from __future__ import annotations

import asyncio
from collections import deque

from ksi_daemon.errors import ComponentBusy


class Turns:
    """One worker's queue. However long it is, nobody is refused while turns end; when none does, all are."""

    def __init__(self, component: str, patience_s: float) -> None:
        self._component = component
        self._patience = patience_s
        self._loop = asyncio.get_running_loop()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._moved = 0.0
        self.taken = False
        """Whether somebody has the turn."""

    async def take(self) -> None:
        """Wait for the turn. Raises `ComponentBusy` when none has ended for `patience_s` seconds."""
        if not self.taken:
            self.taken = True
            return
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(ticket)
        since = self._loop.time()
        try:
            while not ticket.done():
                await asyncio.wait([ticket], timeout=self._left(since))
        except BaseException:
            if ticket.done():  # it was this call's turn at the same moment
                self.give(moved=False)
            else:
                self._queue.remove(ticket)
            raise

    def _left(self, since: float) -> float:
        left = max(since, self._moved) + self._patience - self._loop.time()
        if left <= 0:
            raise ComponentBusy(self._component, self._patience)
        return left

    def give(self, *, moved: bool) -> None:
        """Let the next one have the turn; `moved` says whether the worker got on with this one."""
        if moved:
            self._moved = self._loop.time()
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self.taken = False
