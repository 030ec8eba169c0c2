"""Work that several callers want at the same time: done once, and ended when the last of them has gone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from ksi_daemon.errors import ComponentClosed

Say = Callable[[Any], None]
Work = Callable[[Say], Coroutine[Any, Any, Any]]


class _One:
    """A piece of work under way: what it has said, who listens, and who waits."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.listeners: list[Say] = []
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.task: asyncio.Task[Any]

    def say(self, word: Any) -> None:
        self.said.append(word)
        for listener in self.listeners:
            listener(word)

    def wake(self) -> None:
        """One caller at a turn of the loop: each has something to do with what came of it."""
        while self.waiting and self.waiting[0].done():
            self.waiting.popleft()
        if self.waiting:
            self.waiting.popleft().set_result(None)
            asyncio.get_running_loop().call_soon(self.wake)


class Shared:
    """Owns the task of each piece of work, named by a key."""

    def __init__(self, component: str) -> None:
        self._component = component
        self._under_way: dict[Hashable, _One] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, key: Hashable, work: Work, told: Say | None = None) -> Any:
        """What `work` returns or raises, begun only if nothing of that key is under way.

        `told` gets every word that it says, also those said before this caller came. Who is cancelled leaves;
        the last one cancels the work and waits for its end.
        """
        one = self._under_way.get(key) or self._begin(key, work)
        waiter = asyncio.get_running_loop().create_future()
        one.waiting.append(waiter)
        if told is not None:
            for word in one.said:
                told(word)
            one.listeners.append(told)
        try:
            await waiter
        finally:
            if told is not None:
                one.listeners.remove(told)
            if not one.task.done() and all(other.done() for other in one.waiting):
                await self._end(key, one)
        if one.task.cancelled():
            raise ComponentClosed(self._component)
        return one.task.result()

    async def close(self, timeout: float) -> None:
        """End all work; whoever waits for it gets `ComponentClosed`."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    def count(self) -> int:
        """How many pieces of work are under way."""
        return len(self._tasks)

    def _begin(self, key: Hashable, work: Work) -> _One:
        one = self._under_way[key] = _One()
        one.task = asyncio.create_task(work(one.say))
        self._tasks.add(one.task)
        one.task.add_done_callback(lambda task: self._over(key, one, task))
        return one

    async def _end(self, key: Hashable, one: _One) -> None:
        """From now on who wants the same begins anew."""
        self._forget(key, one)
        one.task.cancel()
        await asyncio.wait([one.task])

    def _over(self, key: Hashable, one: _One, task: asyncio.Task[Any]) -> None:
        self._forget(key, one)
        self._tasks.discard(task)
        one.wake()
        if not task.cancelled():
            task.exception()  # seen: it is no fault if every caller has gone

    def _forget(self, key: Hashable, one: _One) -> None:
        if self._under_way.get(key) is one:
            del self._under_way[key]
