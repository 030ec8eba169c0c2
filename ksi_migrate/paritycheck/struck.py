"""A coroutine that is cancelled at chosen awaits, exactly as `Task.cancel` does it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator


class Struck:
    """Runs `coroutine`; at its await number n (from 0) the running task is cancelled if `strikes(n)`.

    The task is cancelled while it hands out what it waits for, so asyncio cancels just that future: nothing
    depends on how far other threads have come.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, object], strikes: Callable[[int], bool]) -> None:
        self._coroutine = coroutine
        self._strikes = strikes
        self._awaits = 0
        self.struck = False

    async def run(self) -> object:
        """The coroutine's result. Raises what it raises, `CancelledError` too."""
        return await self

    def __await__(self) -> Generator[Any, Any, object]:
        """Pass through whatever the coroutine waits for."""
        call: Callable[[Any], Any] = self._coroutine.send
        given: Any = None
        while True:
            try:
                waits_for = call(given)
            except StopIteration as end:
                return end.value
            self._strike()
            try:
                call, given = self._coroutine.send, (yield waits_for)
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is the coroutine's to take
                call, given = self._coroutine.throw, error

    def _strike(self) -> None:
        if self._strikes(self._awaits):
            self.struck = True
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - awaited from `run`
            task.cancel()
        self._awaits += 1


def once(number: int, at: int) -> bool:
    """Cancel at one await."""
    return at == number


def from_there_on(number: int, at: int) -> bool:
    """Cancel at one await and at all that follow."""
    return at >= number


MANNERS = (("once", once), ("again and again", from_there_on))
"""How a run is cancelled, in words, and at which awaits."""
