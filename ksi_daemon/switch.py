"""The switch: which side of a component is in force, and how one takes over from the other.

It is the only place where the blocking and the non-blocking world meet, and it goes when the migration is
over. It carries the contract's methods as attributes, rebound at each flip, so a call costs one coroutine
more than a direct one, and nothing asks per call which side is in force.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ksi_daemon.errors import ComponentBusy, FlipRefused, KsiError
from ksi_daemon.flags import Stage

if TYPE_CHECKING:
    from ksi_daemon.area import Area
    from ksi_daemon.site import Site

Method = Callable[..., Awaitable[Any]]
GATED = frozenset({"append", "replace"})
"""Kinds whose two sides write one file: a flip lets the running calls end before the other side begins."""


class _Calls:
    """The calls that run on one side; `ended` is set while there are none."""

    __slots__ = ("ended", "running")

    def __init__(self) -> None:
        self.running = 0
        self.ended = asyncio.Event()
        self.ended.set()


@dataclass(frozen=True, slots=True)
class Flip:
    """A change of sides under way: for how long, and the calls that it waits for."""

    to: Stage
    for_s: float
    waits_for: str | None


def contract_methods(contract: type) -> tuple[str, ...]:
    """The names of a contract's own methods, in the order in which it declares them."""
    return tuple(name for name, member in vars(contract).items() if callable(member) and name[0] != "_")


class Switch:
    """One component's two sides behind its contract. Made and used on the loop's thread.

    While the gate is closed a call waits up to `call_timeout` seconds, then raises `ComponentBusy`; those
    that waited go on in the order in which they came, before any later call.
    """

    def __init__(self, area: Area, site: Site) -> None:
        self._area = area
        self._site = site
        self._sides = {False: None if area.retired else area.control(site), True: area.aio(site)}
        self._names = contract_methods(area.contract)
        self._gated = area.kind in GATED
        self._methods: dict[str, Method] = {}
        self._queue: deque[asyncio.Future[None]] = deque()
        self._shut = False
        self._again = False
        self._running = {False: _Calls(), True: _Calls()}
        self._calls = self._running[False]
        self._retiring: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._under_way: tuple[Stage, float] | None = None
        self.stage = Stage.SYNC

    async def open(self, stage: Stage) -> None:
        """Begin on the side of `stage`. Raises the side's own error if it cannot be opened."""
        await self._open_side(stage)
        self._put_in_force(stage)

    async def open_closed(self) -> None:
        """Begin at sync although its log cannot be opened: each call then gets its own error.

        A retired component has no sync side, and begins at async so.
        """
        self._put_in_force(Stage.ASYNC if self._area.retired else Stage.SYNC)

    async def flip(self, stage: Stage) -> bool:
        """Change to `stage` and return when it is in force; False when it was already.

        An upward flip is refused (`FlipRefused`) when the old side's calls do not end within `drain_timeout`
        seconds, or the new side cannot be opened: the old side goes on. A rollback waits as long as it takes.
        """
        async with self._changing:
            if stage == self.stage:
                return False
            self._under_way = (stage, time.monotonic())
            try:
                await self._change(self.stage, stage)
            finally:
                self._under_way = None
            return True

    async def close(self) -> None:
        """Flush and close the side in force; a call after that gets `ComponentClosed` or the side's error."""
        async with self._changing:
            await self._close_side(self.stage)
            if self._retiring is not None:  # closed with calls that still run: nothing may outlive us
                self._running[self.stage == Stage.SYNC].ended.set()
                await self._retiring

    def flipping(self) -> Flip | None:
        """The flip under way and what it waits for, or None."""
        if self._under_way is None:
            return None
        stage, since = self._under_way
        return Flip(stage, time.monotonic() - since, self._waits_for())

    def pending(self) -> str | None:
        """What the side in force is doing, in words; None if it does nothing, or does not tell."""
        pending = getattr(self._side(self.stage), "pending", lambda: None)
        return cast("str | None", pending())

    def _waits_for(self) -> str | None:
        return (self.pending() or f"{self._calls.running} calls") if self._calls.running else None

    async def _change(self, old: Stage, new: Stage) -> None:
        await (self._change_gated if self._gated else self._change_over)(old, new)

    async def _change_over(self, old: Stage, new: Stage) -> None:
        """New calls take the new side at once; those that began end on the old one, which closes then.

        At most one side retires at a time. One that comes back into force while calls still run on it was
        never closed, so it is not opened again; without any its close may have begun, and is waited for.
        """
        retiring, self._retiring = self._retiring, None
        came_back = retiring is not None and self._running[new != Stage.SYNC].running > 0
        if retiring is not None:
            if came_back:
                retiring.cancel()
            await asyncio.wait([retiring])
        if not came_back:
            await self._open_new(old, new)
        calls = self._calls
        self._put_in_force(new)
        self._retiring = asyncio.create_task(self._retire(old, calls))
        await asyncio.sleep(0)

    async def _retire(self, stage: Stage, calls: _Calls) -> None:
        await calls.ended.wait()
        await self._close_side(stage)

    async def _change_gated(self, old: Stage, new: Stage) -> None:
        in_force = old
        self._shut = True
        self._bind()
        try:
            await self._drain(old, new)
            await self._take_over(old, new)
            in_force = new
        finally:
            self._put_in_force(in_force)

    async def _drain(self, old: Stage, new: Stage) -> None:
        """Wait for the calls that began on the old side; reads just end there."""
        limit = self._site.settings.drain_timeout if new > old else None
        try:
            async with asyncio.timeout(limit):
                await self._calls.ended.wait()
        except TimeoutError:
            text = (
                f"{self._area.name} stays at {old}: after {limit:g} s it still waits for {self._waits_for()}"
            )
            raise FlipRefused(text) from None

    async def _take_over(self, old: Stage, new: Stage) -> None:
        await self._open_new(old, new)
        await self._close_side(old)

    async def _open_new(self, old: Stage, new: Stage) -> None:
        """A rollback goes on although its side cannot be opened: each call then gets its own error."""
        try:
            await self._open_side(new)
        except KsiError as error:
            if new > old:
                text = f"{self._area.name} stays at {old}: {error}"
                raise FlipRefused(text) from error

    def _side(self, stage: Stage) -> Any:
        return self._sides[stage != Stage.SYNC]

    async def _open_side(self, stage: Stage) -> None:
        opening = self._side(stage).open()
        if opening is not None:
            await opening

    async def _close_side(self, stage: Stage) -> None:
        closing = self._side(stage).close()
        if closing is not None:
            await closing

    def _put_in_force(self, stage: Stage) -> None:
        self.stage = stage
        self._calls = self._running[stage != Stage.SYNC]
        side = self._side(stage)
        for name in self._names:
            method = getattr(side, name)
            if stage == Stage.SYNC:
                self._methods[name] = _inline(method)
            elif name in self._area.reads and self._gated:
                self._methods[name] = method
            else:
                self._methods[name] = self._counted(method)
        self._shut = False
        for ticket in self._queue:
            _admit(ticket)
        self._bind()

    def _bind(self) -> None:
        """Lay the contract's methods on this object: the side in force, or the gate while somebody waits."""
        waiting = self._shut or bool(self._queue)
        for name, method in self._methods.items():
            gate = waiting and name not in self._area.reads
            setattr(self, name, self._waiting(name) if gate else method)

    def _counted(self, method: Method) -> Method:
        calls = self._calls

        async def call(*args: Any) -> Any:
            calls.running += 1
            calls.ended.clear()
            try:
                return await method(*args)
            finally:
                calls.running -= 1
                if not calls.running:
                    calls.ended.set()

        return call

    def _waiting(self, name: str) -> Method:
        async def call(*args: Any) -> Any:
            await self._turn()
            return await self._methods[name](*args)

        return call

    async def _turn(self) -> None:
        """Wait at the gate. Tickets are let in one callback apart, so the calls begin in their order."""
        loop = asyncio.get_running_loop()
        ticket = loop.create_future()
        self._queue.append(ticket)
        if not self._shut:
            loop.call_soon(_admit, ticket)
        deadline = loop.time() + self._site.settings.call_timeout
        try:
            await self._let_in(ticket, deadline)
            # a flip came between: keep the place in the queue
            while self._shut or self._queue[0] is not ticket:
                self._again = True
                place = self._queue.index(ticket)
                ticket = self._queue[place] = loop.create_future()
                await self._let_in(ticket, deadline)
        finally:
            self._leave(ticket)

    def _leave(self, ticket: asyncio.Future[None]) -> None:
        """Out of the queue; those who had to wait again behind this call are let in."""
        self._queue.remove(ticket)
        if not self._queue:
            self._bind()
        elif self._again and not self._shut:
            self._again = False
            for waiting in self._queue:
                _admit(waiting)

    async def _let_in(self, ticket: asyncio.Future[None], deadline: float) -> None:
        """Wait until admitted; by a timer, since a relayed call has no task for asyncio.timeout."""
        error = ComponentBusy(self._area.name, self._site.settings.call_timeout)
        timer = asyncio.get_running_loop().call_at(deadline, _refuse, ticket, error)
        try:
            await ticket
        finally:
            timer.cancel()


def _admit(ticket: asyncio.Future[None]) -> None:
    if not ticket.done():
        ticket.set_result(None)


def _refuse(ticket: asyncio.Future[None], error: KsiError) -> None:
    if not ticket.done():
        ticket.set_exception(error)


def _inline(method: Callable[..., Any]) -> Method:
    """A blocking method as a coroutine that never waits: it runs on the loop's thread, as it always did."""

    async def call(*args: Any) -> Any:
        return method(*args)

    return call
