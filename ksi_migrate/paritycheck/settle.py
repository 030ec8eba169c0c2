"""Waiting until a service has nothing more to do by itself."""

from __future__ import annotations

import asyncio
from typing import Any, Self
from weakref import WeakSet

PATIENCE = 2.0
"""Seconds after which a task counts as one that lasts, and is waited for no more."""


class Settling:
    """Waits for all other tasks of the loop, again and again; remembers those that do not end.

    While entered it also takes note of errors that reach the loop itself, from callbacks for instance.
    """

    def __init__(self) -> None:
        self._lasting: WeakSet[asyncio.Task[object]] = WeakSet()
        self._errors: list[str] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _loop, context: self._note(context))
        return self

    def __exit__(self, *_exception: object) -> None:
        asyncio.get_running_loop().set_exception_handler(self._before)

    async def settle(self) -> list[str]:
        """Wait until every other task is over; the errors that nobody took, in words, sorted."""
        while others := self._others():
            done, late = await asyncio.wait(others, timeout=PATIENCE)
            self._errors += [repr(task.exception()) for task in done if _failed(task)]
            self._lasting.update(late)
        errors, self._errors = sorted(self._errors), []
        return errors

    def _note(self, context: dict[str, Any]) -> None:
        self._errors.append(f"{context['message']}: {context.get('exception')!r}")

    def _others(self) -> list[asyncio.Task[object]]:
        mine = asyncio.current_task()
        return [task for task in asyncio.all_tasks() if task is not mine and task not in self._lasting]


def _failed(task: asyncio.Task[object]) -> bool:
    return not task.cancelled() and task.exception() is not None
