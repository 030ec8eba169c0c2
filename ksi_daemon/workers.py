"""The workers of one component: processes that read, parse and write for it, so that the loop never has to.

What holds the interpreter for long (parsing, encoding, searching) would stall the loop from a thread too. A
worker ends with the daemon, whatever ends that: its socket is closed then.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.errors import ComponentClosed, IoFailed
from ksi_daemon.lane import Hop, Lane
from ksi_daemon.workerlink import WorkerLink, silent
from ksi_daemon.zygote import ZYGOTE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ksi_daemon.settings import Settings
    from ksi_daemon.worker import Jobs

LOOK: Final = 0.01
"""Seconds between two looks at what a close waits for."""


@dataclass(slots=True)
class _Waiting:
    """A caller in the queue; `at` is the worker that it wants, or None."""

    at: int | None
    ticket: asyncio.Future[int]


class Workers:
    """A few processes for one component. Made and used on the loop's thread; `open` before the first `run`.

    A job gets the next free worker, in the order of the calls. One that keeps something in its process asks
    for that worker by number (`at`), and compares `generation` to see whether it is still the same process.
    """

    def __init__(self, component: str, jobs: Jobs, settings: Settings, *, count: int | None = None) -> None:
        self.count = count or min(2, os.cpu_count() or 1)
        self._component = component
        self._settings = settings
        self._jobs = jobs
        self._queue: deque[_Waiting] = deque()
        self._idle: set[int] = set()
        self._busy: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._workers: list[WorkerLink] = []
        self._generations = [0] * self.count
        self._closed = True
        self._lane: Lane

    def open(self) -> None:
        """Begin to start the processes; does not wait for them."""
        self._closed = False
        self._lane = Lane(f"ksi-{self._component}-workers")
        self._lane.submit(ZYGOTE.hold, _nothing)
        self._workers = [WorkerLink(self._component) for _ in range(self.count)]
        self._idle = set(range(self.count))
        for index in range(self.count):
            self._start(index)

    def generation(self, at: int) -> int:
        """A number that changes whenever another process takes the place of worker `at`."""
        return self._generations[at]

    async def run(
        self,
        name: str,
        *args: Any,
        told: Callable[[Any], None] | None = None,
        at: int | None = None,
        silence_s: float | None = None,
    ) -> Any:
        """What the job `name` returns; `told` is called with each of its words.

        Raises what the job raises if that is an `OSError` or `KsiError`, and `WorkerFailed` for anything else
        or when the process dies; `ComponentBusy` when nothing was heard of it for `silence_s` seconds
        (default `call_timeout`): it is killed then; `ComponentClosed`. Cancelled, it asks the job to stop and
        waits for nothing.
        """
        index = await self._turn(at)
        one = self._workers[index]
        self._busy.add(index)
        try:
            await self._started(index)
            one.ask((name, args), told or silent)
            return await one.outcome(silence_s or self._settings.call_timeout)
        finally:
            self._busy.discard(index)
            if one.quiet:
                self._free(index)
            else:
                self._owned(self._settle(index))

    async def finish(self, name: str, *args: Any, **options: Any) -> Any:
        """As `run`, but a cancelled caller waits for the outcome, which `CancelledTooLate` carries."""
        hop: Hop[Any] = Hop(asyncio.get_running_loop())

        async def to_the_end() -> None:
            try:
                hop.end(await self.run(name, *args, **options), None)
            except asyncio.CancelledError:  # by a close that has no time left
                hop.end(None, ComponentClosed(self._component))
                raise
            except Exception as error:  # noqa: BLE001 - carried to the caller
                hop.end(None, error)

        self._owned(to_the_end())
        return await hop.outcome()

    async def close(self, timeout: float) -> bool:
        """End every process, once the jobs under way are over; False when something outlives `timeout`."""
        if self._closed:
            return True
        self._closed = True
        for waiting in self._queue:
            if not waiting.ticket.done():
                waiting.ticket.set_exception(ComponentClosed(self._component))
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        starts = set(self._starting.values())  # nobody waits for these any more
        while (self._busy or self._tasks - starts) and loop.time() < until:  # noqa: ASYNC110 - it is rare
            await asyncio.sleep(LOOK)
        ended = await asyncio.gather(*(one.end(max(LOOK, until - loop.time())) for one in self._workers))
        while self._tasks:  # with their processes gone they are as good as over
            await asyncio.wait(self._tasks)
        self._lane.submit(ZYGOTE.let_go, _nothing)
        return await self._lane.close(timeout) and all(ended)

    def _owned(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start(self, index: int) -> asyncio.Task[None]:
        """Have a process started; a failure is told to the job that needs it, which tries again."""
        starting = self._starting.get(index)
        if starting is None or starting.done():
            starting = self._starting[index] = self._owned(self._connect(index))
            starting.add_done_callback(_heed)
        return starting

    async def _started(self, index: int) -> None:
        """Raises `IoFailed` when there can be no process now, `WorkerFailed` when it does not answer."""
        starting = self._starting[index]
        if starting.done() and not self._workers[index].alive:
            starting = self._start(index)
        if not starting.done():
            await asyncio.wait([starting])
            starting.result()

    async def _connect(self, index: int) -> None:
        try:
            own = await self._lane.run(ZYGOTE.fork)
        except OSError as error:
            raise IoFailed(self._component, "start a worker process", error) from error
        if self._closed:
            own.close()
            raise ComponentClosed(self._component)
        self._generations[index] += 1
        await self._workers[index].connect(own, self._jobs, self._settings.call_timeout)
        if self._closed:
            await self._workers[index].end(LOOK)

    async def _turn(self, at: int | None) -> int:
        """A worker for one job. One that anybody may have is the last: the first keeps more in its memory."""
        if self._closed:
            raise ComponentClosed(self._component)
        free = [index for index in self._idle if at in (None, index)]
        if free:
            self._idle.discard(max(free))
            return max(free)
        waiting = _Waiting(at, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        try:
            return await waiting.ticket
        except asyncio.CancelledError:
            if not waiting.ticket.cancelled() and waiting.ticket.exception() is None:
                self._free(waiting.ticket.result())  # it was let in at the same moment
            raise
        finally:
            self._queue.remove(waiting)

    def _free(self, index: int) -> None:
        """Give the worker to the first in the queue who can use it."""
        for waiting in self._queue:
            if waiting.at in (None, index) and not waiting.ticket.done():
                waiting.ticket.set_result(index)
                return
        self._idle.add(index)

    async def _settle(self, index: int) -> None:
        """Have a job end that nobody waits for, and let others have the worker then."""
        await self._workers[index].stop()
        self._free(index)


def _heed(starting: asyncio.Task[None]) -> None:
    """A start that failed before any job needed it is no fault yet."""
    if not starting.cancelled():
        starting.exception()


def _nothing(_result: Any, _error: Exception | None) -> None:
    """What is done in the lane for its effect."""
