"""Faults to plant: what each one means for a method, by the kind of method that a contract can have."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sized
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ksi_daemon.errors import KsiError
from ksi_daemon.switch import GATED

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.area import Kind

Method = Callable[..., Awaitable[Any]]
Plant = Callable[[Method, "Path"], Method]
"""A method and the room's first file in, the method with its fault out."""

LATE = 0.002
"""Seconds by which a delayed effect comes after its reply."""

_late: set[asyncio.Task[Any]] = set()


def _kept(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments as they are now: a mapping may be a view of what changes after its call."""
    return tuple(dict(arg) if isinstance(arg, Mapping) else arg for arg in args)


def drop(method: Method, _path: Path) -> Method:
    """Nothing is done, and success is reported; callbacks get nothing."""

    async def call(*_args: Any) -> None:
        return None

    return functools.wraps(method)(call)


def repeat(method: Method, _path: Path) -> Method:
    """Everything is done twice, the second time after the call that follows: what is replaced comes back."""
    before: list[tuple[Any, ...]] = []

    async def call(*args: Any) -> Any:
        args = _kept(args)
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
        task = asyncio.create_task(later(*_kept(args)))
        _late.add(task)
        task.add_done_callback(_late.discard)

    return functools.wraps(method)(call)


def swap_calls(method: Method, _path: Path) -> Method:
    """Of two calls that are under way together, the later one goes first; a call alone is as it should be."""
    waiting: list[asyncio.Event] = []

    async def call(*args: Any) -> Any:
        args = _kept(args)
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
    """The last byte, character or item of the last argument is missing, and that of each mapping."""

    async def call(*args: Any) -> Any:
        first = (shortened(arg) if isinstance(arg, dict) else arg for arg in _kept(args[:-1]))
        return await method(*first, shortened(args[-1]))

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
    """Each answer is the one that was right a call ago; before that, an empty one."""
    answers: list[Any] = []

    async def call(*args: Any) -> Any:
        answer = await method(*args)
        answers.append(answer)
        return answers.pop(0) if len(answers) > 1 else _empty(answer)

    return functools.wraps(method)(call)


def _empty(answer: Any) -> Any:
    """Nothing, of the same type; a record, which has no empty one, is as it should be."""
    return answer if _is_record(answer) else type(answer)()


def doubled(answer: Any) -> Any:
    """Everything is there twice; in a dict under a second key."""
    if isinstance(answer, dict):
        return answer | {f"{key}, again": value for key, value in answer.items()}
    return answer + answer


def reversed_(answer: Any) -> Any:
    """What is first is last; a dict has an order too."""
    return dict(reversed(answer.items())) if isinstance(answer, dict) else answer[::-1]


def shortened(answer: Any) -> Any:
    """The last byte, character or item is missing."""
    return dict(list(answer.items())[:-1]) if isinstance(answer, dict) else answer[:-1]


def changed(change: Callable[[Any], Any]) -> Plant:
    """The answer passes through `change`; of a record the last field that has something to change."""

    def through(answer: Any) -> Any:
        if not _is_record(answer):
            return change(answer)
        full = [name for name, value in answer._asdict().items() if isinstance(value, Sized) and value]
        return answer._replace(**{name: change(getattr(answer, name)) for name in full[-1:]})

    def plant(method: Method, _path: Path) -> Method:
        async def call(*args: Any) -> Any:
            return through(await method(*args))

        return functools.wraps(method)(call)

    return plant


def _is_record(answer: Any) -> bool:
    """Whether it is a `NamedTuple`, whose parts do not change places without harm to their names."""
    return isinstance(answer, tuple) and hasattr(answer, "_fields")


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
    "repeat": changed(doubled),
    "delay": stale,
    "swap": changed(reversed_),
    "truncate": changed(shortened),
}
"""For a method that returns a value."""


def table(contract: type, name: str, kind: Kind) -> dict[str, Plant]:
    """What the seven faults mean for one method of a contract, by its annotations.

    Two writes that change places mean nothing where each call has a file of its own and the service keeps
    the order of those that share one: that is so for components that run processes.
    """
    signature = inspect.signature(getattr(contract, name))
    if any("Callable" in str(parameter.annotation) for parameter in signature.parameters.values()):
        return FEEDS
    if signature.return_annotation not in (None, "None"):
        return ANSWERS
    return {fault: plant for fault, plant in WRITES.items() if fault != "swap" or kind in GATED}
