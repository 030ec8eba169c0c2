"""Group commit: many callers append lines, one writer thread writes each batch with one system call.

The loop only encodes and enqueues. Lines that arrive while a batch is being written form the next one, and
all callers of a batch share one future.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from typing import TYPE_CHECKING

from ksi_daemon.errors import ComponentBusy, ComponentClosed, IoFailed, OutcomeUnknown
from ksi_daemon.lane import Hop, Lane

if TYPE_CHECKING:
    from ksi_daemon.linefile import LineFile
    from ksi_daemon.site import Site

BATCH_BYTES = 1024 * 1024
"""A batch that is this large takes no further line."""

BACKLOG_BYTES = 8 * 1024 * 1024
"""What may wait for the writer; beyond it callers wait for their turn, first come, first served."""


HANGING = 0.05
"""Seconds between two looks of a flush at a write whose callers were answered already."""


class _Batch:
    """Lines that go to the file together, and the outcome their callers share."""

    __slots__ = ("hop", "lines", "size")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.hop: Hop[None] = Hop(loop)
        self.lines: list[bytes] = []
        self.size = 0


class GroupCommit:
    """The async writer of one log. Its methods belong to the loop's thread, its file to the writer's.

    `append` returns when the line is in the file (`durability: fsync`: on the disk). Lines stand in the
    order of the calls. A cancelled caller still waits for its line's fate. If a write fails, every caller of
    that batch gets the error and none of its lines stays in the file; later batches stand. If the disk hangs
    for longer than `call_timeout`, callers are answered instead of waiting on. A `lane` that is given may
    serve several files, and its owner ends it.
    """

    def __init__(self, file: LineFile, site: Site, lane: Lane | None = None) -> None:
        self._file = file
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._shared = lane is not None
        self._lane = lane or Lane(f"ksi-{site.component}-writer")
        self._batches: deque[_Batch] = deque()
        self._turns: deque[asyncio.Future[None]] = deque()
        self._backlog = 0
        self._writing: _Batch | None = None
        self._since = 0.0
        self._ready = False
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    async def open(self) -> None:
        """Open the log, mend a torn tail. Raises `IoFailed`, also when the disk does not answer in time."""
        opening: Hop[None] = Hop(self._loop)
        self._lane.submit(self._file.open, opening.end)
        await asyncio.wait([opening.waiter], timeout=self._limit())
        if not opening.over:
            opening.end(None, IoFailed(self._site.component, f"open {self._file.path}", _timed_out()))
        try:
            await opening.outcome()
        except IoFailed:
            await self._end_lane(0.0)
            raise

    async def append(self, line: bytes) -> None:
        """Add one whole line. Raises `IoFailed`, `OutcomeUnknown`, `ComponentBusy`, `ComponentClosed`."""
        if self._backlog >= BACKLOG_BYTES or self._turns or self._closed:
            await self._turn()
        batches = self._batches
        batch = batches[-1] if batches else None
        if batch is None or batch.size >= BATCH_BYTES:
            batch = self._new_batch()
        batch.lines.append(line)
        size = len(line)
        batch.size += size
        self._backlog += size
        try:
            await batch.hop.waiter
        except asyncio.CancelledError:
            await batch.hop.go_on()

    async def flush(self) -> None:
        """Wait until everything appended before is written or refused."""
        while self._turns or self._batches or self._writing:
            last = self._batches[-1] if self._batches else self._writing
            await asyncio.wait([last.hop.waiter if last else self._turns[-1]])
            hangs = last is not None and last is self._writing and last.hop.over
            await asyncio.sleep(HANGING if hangs else 0)

    async def close(self) -> bool:
        """Flush, close the log, end an own writer. False when the disk hangs: what waits then is refused."""
        self._closed = True
        timeout = self._site.settings.stop_timeout
        try:
            async with asyncio.timeout(timeout):
                await self.flush()
        except asyncio.CancelledError:  # by a stop that has no time left
            self._give_up(self._loop.time() - self._since)
            raise
        except TimeoutError:
            self._give_up(self._loop.time() - self._since)
            timeout = 0.0
        return await self._end_lane(timeout)

    def pending(self) -> str | None:
        """What a drain is waiting for, in words, or None."""
        if self._writing is None:
            return None
        seconds = self._loop.time() - self._since
        return f"a write of {len(self._writing.lines)} lines, for {seconds:.1f} s"

    async def _end_lane(self, timeout: float) -> bool:
        """Let the file and an own thread go, within `timeout` seconds or whenever the disk answers."""
        closing: Hop[None] = Hop(self._loop)
        self._lane.submit(self._file.close, closing.end)
        if not self._shared:
            return await self._lane.close(timeout)
        await asyncio.wait([closing.waiter], timeout=timeout)
        return closing.over

    def _new_batch(self) -> _Batch:
        batch = _Batch(self._loop)
        self._batches.append(batch)
        self._schedule()
        return batch

    def _schedule(self) -> None:
        """Hand the next batch over after the callbacks that are ready now: their lines join it."""
        if self._writing is None and not self._ready and self._batches:
            self._ready = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._ready = False
        if not self._batches:
            return
        batch = self._writing = self._batches.popleft()
        self._since = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_later(self._limit(), self._look)
        self._lane.submit(lambda: self._write(batch), lambda _result, error: self._written(batch, error))

    def _write(self, batch: _Batch) -> None:
        """On the writer's thread."""
        self._file.append(b"".join(batch.lines), self._site.durability)

    def _written(self, batch: _Batch, error: Exception | None) -> None:
        self._writing = None
        self._backlog -= batch.size
        batch.hop.end(None, error)
        self._admit()
        self._schedule()

    async def _turn(self) -> None:
        """Wait for room in the backlog, behind those who wait already."""
        if self._closed:
            raise ComponentClosed(self._site.component)
        ticket = self._loop.create_future()
        self._turns.append(ticket)
        try:
            await ticket
        finally:
            self._turns.remove(ticket)
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        """Let the first caller in the queue go on; it stays there until it runs, so nobody overtakes it."""
        if self._turns and self._backlog < BACKLOG_BYTES and not self._turns[0].done():
            self._turns[0].set_result(None)

    def _limit(self) -> float:
        return self._site.settings.call_timeout

    def _look(self) -> None:
        """Look, once in a while and only while something is being written, whether the disk is stuck."""
        self._watch = None
        if self._writing is None:
            return
        stuck = self._loop.time() - self._since
        if stuck >= self._limit():
            self._give_up(stuck)
        self._watch = self._loop.call_later(max(0.1, self._limit() - stuck), self._look)

    def _give_up(self, seconds: float) -> None:
        """Answer everybody. What the kernel has may still be written; what still waits here is dropped."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._writing is not None:
            action = f"append to {self._file.path} for {seconds:.1f} s"
            self._writing.hop.end(None, OutcomeUnknown(self._site.component, action, _timed_out()))
        while self._batches:
            batch = self._batches.popleft()
            self._backlog -= batch.size
            batch.hop.end(None, ComponentBusy(self._site.component, seconds))
        for ticket in self._turns:
            if not ticket.done():
                ticket.set_exception(ComponentBusy(self._site.component, seconds))


def _timed_out() -> OSError:
    return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
