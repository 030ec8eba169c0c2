"""Runs many coroutines that wait for the same few futures, without a task for each.

A request that overlaps others spends its life waiting for the one future of its batch. A task would cost
more than the request itself, so the coroutine is begun at once, as eager tasks of Python 3.12 are, and those
that wait for one future are resumed together, in order, a slice at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

SLICE = 32
"""Coroutines resumed before the loop turns to others."""

_Waiter = tuple[Coroutine[Any, None, bytes], Callable[[bytes], None]]


class Relay:
    """Owner of all coroutines given to `start`, which must not raise. There is no current task in them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Future[Any], list[_Waiter]] = {}
        self._ready: deque[_Waiter] = deque()
        self._scheduled = False

    def start(self, coroutine: Coroutine[Any, None, bytes], then: Callable[[bytes], None]) -> None:
        """Run a coroutine to its first wait now and to its end later; `then` gets what it returns."""
        self._step((coroutine, then))

    def close(self) -> None:
        """Drop what still waits; what those coroutines would have returned goes to nobody."""
        for waiters in self._waiting.values():
            for coroutine, _ in waiters:
                coroutine.close()
        self._waiting.clear()
        for coroutine, _ in self._ready:
            coroutine.close()
        self._ready.clear()

    def _step(self, waiter: _Waiter) -> None:
        coroutine, then = waiter
        try:
            future: Any = coroutine.send(None)
        except StopIteration as end:
            then(end.value)
            return
        if future is None:  # asyncio.sleep(0)
            self._resume([waiter])
            return
        future._asyncio_future_blocking = False  # noqa: SLF001 - asyncio's own handshake, as Task does it
        waiters = self._waiting.get(future)
        if waiters is not None:
            waiters.append(waiter)
        else:
            self._waiting[future] = [waiter]
            future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._resume(self._waiting.pop(future, []))

    def _resume(self, waiters: list[_Waiter]) -> None:
        self._ready.extend(waiters)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        ready = self._ready
        for _ in range(min(SLICE, len(ready))):
            self._step(ready.popleft())
        self._scheduled = bool(ready)
        if ready:
            self._loop.call_soon(self._run)
