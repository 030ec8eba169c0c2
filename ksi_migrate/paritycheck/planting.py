"""Faults to plant: what each one means for a method, by the kind of method that a contract can have."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from pathlib import Path

Method = Callable[..., Awaitable[Any]]
Plant = Callable[[Method, "Path"], Method]
"""A method and the room's first file in, the method with its fault out."""

LATE = 0.002
"""Seconds by which a delayed effect comes after its reply."""

_late: set[asyncio.Task[Any]] = set()


def drop(method: Method, _path: Path) -> Method:
    """Nothing is done, and success is reported; callbacks get nothing."""

    async def call(*_args: Any) -> None:
        return None

    return functools.wraps(method)(call)


def repeat(method: Method, _path: Path) -> Method:
    """Everything is done twice, the second time after the call that follows: what is replaced comes back."""
    before: list[tuple[Any, ...]] = []

    async def call(*args: Any) -> Any:
        result = await method(*args)
        await method(*(before.pop() if before else args))
        before.append(args)
        return result

    return functools.wraps(method)(call)


def delay(method: Method, _path: Path) -> Method:
    """The reply comes first, the effect after it: fire and forget."""

    async def later(*args: Any) -> None:
        await asyncio.sleep(LATE)
        with suppress(KsiError):
            await method(*args)

    async def call(*args: Any) -> None:
        task = asyncio.create_task(later(*args))
        _late.add(task)
        task.add_done_callback(_late.discard)

    return functools.wraps(method)(call)


def swap_calls(method: Method, _path: Path) -> Method:
    """Of two calls that are under way together, the later one goes first; a call alone is as it should be."""
    waiting: list[asyncio.Event] = []

    async def call(*args: Any) -> Any:
        if waiting:
            result = await method(*args)
            waiting.pop().set()
            return result
        gone_ahead = asyncio.Event()
        waiting.append(gone_ahead)
        with suppress(TimeoutError):
            await asyncio.wait_for(gone_ahead.wait(), LATE)
        with suppress(ValueError):
            waiting.remove(gone_ahead)
        return await method(*args)

    return functools.wraps(method)(call)


def swap_lines(method: Method, _path: Path) -> Method:
    """Two neighbours change places on their way to the callback."""

    async def call(take: Callable[[Any], None]) -> Any:
        lines: list[Any] = []
        result = await method(lines.append)
        lines[:2] = lines[:2][::-1]
        for line in lines:
            take(line)
        return result

    return functools.wraps(method)(call)


def swallow(method: Method, _path: Path) -> Method:
    """Errors become success."""

    async def call(*args: Any) -> Any:
        with suppress(KsiError):
            return await method(*args)

    return functools.wraps(method)(call)


def truncate_argument(method: Method, _path: Path) -> Method:
    """The last byte, character or item of the last argument is missing."""

    async def call(*args: Any) -> Any:
        return await method(*args[:-1], args[-1][:-1])

    return functools.wraps(method)(call)


def truncate_lines(method: Method, _path: Path) -> Method:
    """The last line does not reach the callback."""

    async def call(take: Callable[[Any], None]) -> Any:
        lines: list[Any] = []
        result = await method(lines.append)
        for line in lines[:-1]:
            take(line)
        return result

    return functools.wraps(method)(call)


def stale(method: Method, _path: Path) -> Method:
    """Each answer is the one that was right a call ago."""
    answers: list[Any] = [None]

    async def call(*args: Any) -> Any:
        answers.append(await method(*args))
        return answers.pop(0)

    return functools.wraps(method)(call)


def changed(change: Callable[[Any], Any]) -> Plant:
    """The answer, an object that can be sliced, passes through `change`."""

    def plant(method: Method, _path: Path) -> Method:
        async def call(*args: Any) -> Any:
            return change(await method(*args))

        return functools.wraps(method)(call)

    return plant


def chmod(method: Method, path: Path) -> Method:
    """The file is open to everybody afterwards."""

    async def call(*args: Any) -> Any:
        try:
            return await method(*args)
        finally:
            with suppress(FileNotFoundError):
                os.chmod(path, 0o644)  # that is the fault

    return functools.wraps(method)(call)


WRITES: dict[str, Plant] = {
    "drop": drop,
    "repeat": repeat,
    "delay": delay,
    "swap": swap_calls,
    "swallow": swallow,
    "truncate": truncate_argument,
    "chmod": chmod,
}
"""For a method that changes something and returns nothing."""

FEEDS: dict[str, Plant] = {**WRITES, "swap": swap_lines, "truncate": truncate_lines}
"""For a method that gives what it reads to a callback."""

ANSWERS: dict[str, Plant] = {
    **WRITES,
    "repeat": changed(lambda answer: answer + answer),
    "delay": stale,
    "swap": changed(lambda answer: answer[::-1]),
    "truncate": changed(lambda answer: answer[:-1]),
}
"""For a method that returns a value."""


def table(contract: type, name: str) -> dict[str, Plant]:
    """What the seven faults mean for one method of a contract, by its annotations."""
    signature = inspect.signature(getattr(contract, name))
    if any("Callable" in str(parameter.annotation) for parameter in signature.parameters.values()):
        return FEEDS
    return WRITES if signature.return_annotation in (None, "None") else ANSWERS
