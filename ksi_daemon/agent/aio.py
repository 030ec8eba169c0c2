"""The identity store that never blocks: encoded pages, one writer, one write for all who come meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ksi_daemon.agent import core
from ksi_daemon.agent.pages import Pages
from ksi_daemon.agent.store import Store, decode_politely
from ksi_daemon.errors import ComponentBusy, ComponentClosed, IoFailed, OutcomeUnknown
from ksi_daemon.lane import Hop, Lane
from ksi_daemon.replace import Abandoned, write_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ksi_daemon.site import Site

T = TypeVar("T")

MANY = 64
"""From so many changed identities on a save is encoded in slices, all of them, not before its first wait."""

ROW = 16
"""Callers that are told the outcome in one turn of the loop."""

SLICE_S = 0.0005
"""Seconds for which pages are worked on before others get their turn."""

_Entry = tuple[str, bytes | None]


class _Batch:
    """Changes that go to the disk with one write, and the outcome that their callers share."""

    __slots__ = ("_callers", "_loop", "_rows", "begun", "changes", "count", "everything", "over", "wanted")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rows: list[Hop[None]] = []
        self._callers = 0
        self.over = False
        self.changes: list[_Entry] = []
        self.everything: dict[str, Any] | None = None
        self.count = 0
        self.begun = 0.0
        self.wanted = True

    def add(self, everything: dict[str, Any] | None, changes: list[_Entry], count: int) -> None:
        """Have the changes of one more save, or instead of all before it everything that there is now."""
        self.count += count
        if everything is not None:
            self.everything = everything
            self.changes.clear()
        self.changes += changes

    def hop(self) -> Hop[None]:
        """The outcome for one more caller; those of one row share it."""
        if self._callers % ROW == 0:
            self._rows.append(Hop(self._loop))
        self._callers += 1
        return self._rows[-1]

    def end(self, error: Exception | None) -> None:
        """Give the outcome, of which the first one counts: a row at each turn of the loop."""
        if not self.over:
            self.over = True
            self._end_rows(iter(self._rows), error)

    def _end_rows(self, rows: Iterator[Hop[None]], error: Exception | None) -> None:
        for row in rows:
            row.end(None, error)
            self._loop.call_soon(self._end_rows, rows, error)
            return


class AsyncIdentities:
    """The candidate. Needs a running loop from `open` on.

    `_pages` hold what was last handed to the writer; they are dropped when a write fails, and built again
    from the caller's own view at the next save. A failure is answered to everybody at once; until all of
    them have gone on, a new save may have been built on theirs, and is refused with them.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._store = Store(site)
        self._pages: Pages | None = None
        self._next: _Batch | None = None
        self._writing: _Batch | None = None
        self._writer: asyncio.Task[None] | None = None
        self._callers = 0
        self._refused: Exception | None = None
        self._closed = True
        self._lane: Lane

    async def open(self) -> None:
        """Start the writer's thread, remove what a crash has left. Raises `IoFailed` when the disk hangs."""
        self._lane = Lane(f"ksi-{self._site.component}-writer")
        self._pages, self._closed = None, False
        try:
            await self._in_time("open", self._store.open)
        except (IoFailed, asyncio.CancelledError):
            self._closed = True
            await self._lane.close(0.0)
            raise

    async def close(self) -> None:
        """Write what is waiting, then end the thread; what hangs is given up and takes no effect later."""
        self._closed = True
        timeout = self._site.settings.stop_timeout
        try:
            if self._writer is not None:
                await asyncio.wait([self._writer], timeout=timeout)
        except asyncio.CancelledError:  # by a stop that has no time left
            await self._end(0.0)
            raise
        await self._end(timeout)

    async def _end(self, timeout: float) -> None:
        if self._writer is not None and not self._writer.done():
            self._give_up(timeout)
            self._writer.cancel()
            await asyncio.wait([self._writer])
            timeout = 0.0
        self._pages = self._writer = None
        await self._lane.close(timeout)

    def pending(self) -> str | None:
        """What is being written, in words, or None."""
        if self._writing is None:
            return None
        seconds = asyncio.get_running_loop().time() - self._writing.begun
        return f"a write of {self._writing.count} changed identities, for {seconds:.1f} s"

    async def load(self) -> dict[str, Any]:
        """Read and decode on the writer's thread, which lets others run between two pieces."""
        self._only_open()
        return await self._in_time("read", lambda: self._store.read(decode_politely))

    async def save(self, identities: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Wait for the write that holds these changes."""
        self._only_open()
        if self._refused is not None:
            raise self._refused
        hop = self._join(identities, changed)
        self._callers += 1
        try:
            await hop.outcome()
        finally:
            self._callers -= 1
            if not self._callers:
                self._refused = None

    def _only_open(self) -> None:
        if self._closed:
            raise ComponentClosed(self._site.component)

    def _join(self, identities: Mapping[str, Any], changed: Sequence[str]) -> Hop[None]:
        """Put the changes into the next write; the first after a start or failure takes everything along."""
        many = len(changed) >= MANY
        first = self._pages is None and self._writing is None and self._next is None
        entries = [] if many else [(agent, _entry(identities, agent)) for agent in changed]
        everything = core.whole(identities) if first or many else None
        if self._next is None:
            self._next = _Batch(asyncio.get_running_loop())
            if self._writer is None or self._writer.done():
                self._writer = asyncio.create_task(self._write_on())
        self._next.add(everything, entries, len(changed))
        return self._next.hop()

    async def _write_on(self) -> None:
        """One batch after the other, each with all that came while the last one was written."""
        while self._next is not None:
            batch, self._next = self._next, None
            self._writing = batch
            batch.begun = asyncio.get_running_loop().time()
            try:
                await self._write(batch)
            except Exception as error:  # noqa: BLE001 - whoever got no answer would wait for ever
                self._fail(batch, error)
            else:
                batch.end(None)
            finally:
                self._writing = None

    async def _write(self, batch: _Batch) -> None:
        pages = self._pages = await _changed(self._pages, batch)
        pieces = pages.snapshot()
        writing: Hop[None] = Hop(asyncio.get_running_loop())
        self._lane.submit(lambda: self._replace(pieces, batch), writing.end)
        await self._answered(writing)
        if not batch.wanted:  # it came through all the same, but its callers were told otherwise
            raise self._unknown()

    def _replace(self, pieces: Sequence[bytes], batch: _Batch) -> None:
        """On the writer's thread."""
        try:
            self._store.replace(lambda fd: write_pieces(fd, pieces), lambda: batch.wanted)
        except Abandoned:
            raise self._unknown() from None

    async def _answered(self, writing: Hop[None]) -> None:
        """Wait for the disk, the only writer there is; when it hangs answer the callers in time."""
        while not writing.over:
            limit = self._site.settings.call_timeout
            await asyncio.wait([writing.waiter], timeout=limit)
            if not writing.over:
                self._give_up(limit)
        await writing.outcome()

    def _give_up(self, seconds: float) -> None:
        """Tell everybody that the disk hangs; a write that wakes up later takes no effect."""
        if self._writing is not None:
            self._writing.wanted = False
        self._answer(self._writing, self._unknown(), ComponentBusy(self._site.component, seconds))

    def _fail(self, batch: _Batch, error: Exception) -> None:
        """A failed write fails everybody: those who wait have built on what is not there."""
        self._pages = None
        waiting = error
        if not batch.wanted:
            waiting = ComponentBusy(self._site.component, self._site.settings.call_timeout)
        elif isinstance(error, OutcomeUnknown) and isinstance(error.__cause__, OSError):
            waiting = IoFailed(self._site.component, f"replace {self._store.path}", error.__cause__)
        self._answer(batch, error, waiting)

    def _answer(self, batch: _Batch | None, error: Exception, waiting: Exception) -> None:
        """Give `error` to the callers of the batch that is being written, `waiting` to all behind them."""
        if batch is not None:
            batch.end(error)
        if self._next is not None:
            behind, self._next = self._next, None
            behind.end(waiting)
        if self._callers:
            self._refused = waiting

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(self._site.component, f"replace {self._store.path}", _timed_out())

    async def _in_time(self, what: str, call: Callable[[], T]) -> T:
        """What `call` gives on the writer's thread. Raises `IoFailed` too when the disk does not answer."""
        hop: Hop[T] = Hop(asyncio.get_running_loop())
        self._lane.submit(call, hop.end)
        await asyncio.wait([hop.waiter], timeout=self._site.settings.call_timeout)
        if not hop.over:
            hop.end(None, IoFailed(self._site.component, f"{what} {self._store.path}", _timed_out()))
        return await hop.outcome()


def _entry(identities: Mapping[str, Any], agent: str) -> bytes | None:
    return core.entry(agent, identities[agent]) if agent in identities else None


async def _changed(pages: Pages | None, batch: _Batch) -> Pages:
    """The pages with the changes of a batch, or made from everything that it took along; in slices."""
    if pages is None or batch.everything is not None:
        pages = Pages()
        everything = (batch.everything or {}).items()
        await _in_slices(everything, lambda agent, identity: pages.put(agent, core.entry(agent, identity)))
    await _in_slices(batch.changes, pages.put)
    return pages


async def _in_slices(items: Iterable[tuple[str, T]], do: Callable[[str, T], None]) -> None:
    """Do it to each item, and give the others a turn now and then."""
    until = time.perf_counter() + SLICE_S
    for item in items:
        do(*item)
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_S


def _timed_out() -> OSError:
    return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
