"""A lane: one thread of one component that already waits, and does blocking calls in the order given.

Its own thread, so that a dead disk holds up one component only; a daemon thread, so that a call which
never returns cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
_Then = Callable[[Any, Exception | None], None]
_Job = tuple[Callable[[], object], _Then]


class Lane:
    """Made and used on the loop's thread. The thread starts with the first call and ends with `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def submit(self, call: Callable[[], object], then: _Then) -> None:
        """Do `call()` on the lane's thread, then `then(result, error)` on the loop's."""
        if self._thread is None:
            # an earlier thread, ended or stuck, keeps its own two
            self._jobs, self._ended = SimpleQueue(), self._loop.create_future()
            work = (self._jobs, self._ended)
            thread = threading.Thread(target=self._work, args=work, name=self._name, daemon=True)
            thread.start()
            self._thread = thread  # not before: a thread that could not be started is tried again
        self._jobs.put((call, then))

    async def run(self, call: Callable[[], T]) -> T:
        """What `call()` returns or raises. A cancelled caller still waits for the end of the call."""
        hop: Hop[T] = Hop(self._loop)
        self.submit(call, hop.end)
        return await hop.outcome()

    async def close(self, timeout: float) -> bool:
        """End the thread after the calls already given; False when it is stuck after `timeout` seconds."""
        if self._thread is None:
            return True
        self._thread = None
        self._jobs.put(None)
        await asyncio.wait([self._ended], timeout=timeout)
        return self._ended.done()  # no join: telling it was the last thing that the thread did

    def _work(self, jobs: SimpleQueue[_Job | None], ended: asyncio.Future[None]) -> None:
        while (job := jobs.get()) is not None:
            call, then = job
            result: object = None
            error: Exception | None = None
            try:
                result = call()
            except Exception as raised:  # noqa: BLE001 - carried to the caller: a dead lane would hang them all
                error = raised
            self._tell(then, result, error)
            del job, call, then, result, error  # nothing of a finished call is kept while waiting
        self._tell(ended.set_result, None)

    def _tell(self, then: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(then, *values)


class LaneExecutor(Executor):
    """A lane for libraries that want an executor; a call that was given cannot be cancelled."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do the call on the lane's thread; on the loop's thread only, as all of a lane."""
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()

        def end(result: Any, error: Exception | None) -> None:
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        self._lane.submit(partial(call, *args, **kwargs), end)
        return outcome


class CancelledTooLate(asyncio.CancelledError):
    """The task was cancelled while a call that had begun went on to its end; without `error` it succeeded."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error


class Hop(Generic[T]):
    """One outcome that many callers may wait for, and that no cancelled caller can take from the others.

    Wait with `outcome()`, or, to save a coroutine on a hot path, with `await hop.waiter` and on
    `CancelledError` `await hop.go_on()`. A cancelled task cancels the future it waits for; that future is
    replaced, the others go on waiting, and the cancelled caller gets its `CancelledError` when the outcome
    is there. (`asyncio.shield` does the same for 3 microseconds more a call, a `Future` subclass for 0.5.)
    """

    __slots__ = ("_error", "_loop", "_over", "_result", "waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._over = False
        self._result: T | None = None
        self._error: Exception | None = None
        self.waiter: asyncio.Future[T] = loop.create_future()

    @property
    def over(self) -> bool:
        """Whether the outcome is there."""
        return self._over

    def end(self, result: Any, error: Exception | None) -> None:
        """Give the outcome; only the first one counts."""
        if self._over:
            return
        self._over, self._result, self._error = True, result, error
        if self.waiter.done():
            return
        if error is None:
            self.waiter.set_result(result)
        else:
            self.waiter.set_exception(error)
            self.waiter.exception()  # seen: it is no fault if every caller has gone

    async def outcome(self) -> T:
        """The result, or the error raised."""
        try:
            return await self.waiter
        except asyncio.CancelledError:
            return await self.go_on()

    async def go_on(self) -> T:
        """Wait on after a `CancelledError`; raises it at the end if it was meant for this task."""
        task = asyncio.current_task()
        while not self._over:
            if self.waiter.cancelled():
                self.waiter = self._loop.create_future()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self.waiter])
        if task is not None and task.cancelling():
            raise CancelledTooLate(self._error)
        if self._error is not None:
            raise self._error
        return cast("T", self._result)
