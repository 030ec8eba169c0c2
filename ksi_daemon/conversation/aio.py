"""Conversations on the side that never blocks: worker processes read what an index does not know yet."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon.conversation.contract import Progress
from ksi_daemon.conversation.core import BUS, Summary, exports_dir
from ksi_daemon.conversation.jobs import JOBS
from ksi_daemon.conversation.logfile import log_of
from ksi_daemon.conversation.ordering import sorted_in_turns
from ksi_daemon.conversation.scan import Part
from ksi_daemon.errors import IoFailed, KsiError, WorkerFailed
from ksi_daemon.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from ksi_daemon.conversation.contract import Told
    from ksi_daemon.conversation.core import Exported, Found, Order, Page, Wanted, Which
    from ksi_daemon.conversation.scan import Plan, Read
    from ksi_daemon.site import Site

log = structlog.get_logger("ksi.conversation")

KEEPER = 0
"""The worker whose process keeps the index."""

TRIES = 3
"""Times that a scan is begun: a worker may die in the middle of one."""

SAVED_S = 2.0
"""Seconds between two writes of the index while there are changes."""

AHEAD = 1
"""Parts of a search that wait beside one for each worker, so that none is ever without work."""

PART = 4 * 1024 * 1024
SESSIONS = 200
"""Bytes and conversations that one part of a search has at most."""


class AsyncConversations:
    """The candidate. What it knows of the logs is derived, and is made again after a flip."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder = os.fspath(site.settings.response_log_dir)
        self._exports = os.fspath(exports_dir(site.settings))
        self._index = os.fspath(site.settings.cache_dir / "conversations.json")
        self._workers = Workers(site.component, JOBS, site.settings)
        self._known: tuple[Summary, ...] = ()
        self._version = ""
        self._progress = Progress(0, 0)
        self._scanning = False
        self._unsaved = False
        self._saved_at = 0.0
        self._settling: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Begin to start the workers; nobody waits for them here."""
        self._workers.open()
        self._own(self._in_background("clean", self._exports))

    async def close(self) -> None:
        """Save the index, end the workers, and forget what they knew."""
        timeout = self._site.settings.stop_timeout / 5  # twice, within the daemon's own limit for all closes
        leaving = self._own(self._leave())
        try:
            await asyncio.wait([leaving], timeout=timeout)
        finally:
            await self._workers.close(timeout)
            await _ended(list(self._tasks))
            self._known, self._version = (), ""

    async def _leave(self) -> None:
        await self._taken_in()
        if self._unsaved:
            await self._save()

    def pending(self) -> str | None:
        """What is being scanned, in words, or None."""
        if not self._scanning:
            return None
        return f"a scan of conversations, {self._progress.done:,} of {self._progress.total:,} files"

    async def refresh(self, told: Told | None) -> tuple[Summary, ...]:
        """Look at every log, and read what the index does not know yet."""
        tries, self._scanning = TRIES, True
        try:
            while not await self._scanned(told, last=tries == 1):
                tries -= 1
        finally:
            self._scanning = False
        return self._known

    async def search(self, among: Sequence[Summary], wanted: Wanted) -> tuple[Found, ...]:
        """Search parts side by side, and none that lies far behind where enough is found."""
        parts = _parts(among)
        under_way: deque[asyncio.Task[list[Found]]] = deque()
        found: list[Found] = []
        try:
            while len(found) < wanted.limit:
                while len(under_way) < self._workers.count + AHEAD and (part := next(parts, None)):
                    under_way.append(asyncio.create_task(self._find(part, wanted)))
                if not under_way:
                    break
                found += await under_way[0]
                under_way.popleft()
        finally:
            await _ended(under_way)
        return tuple(found[: wanted.limit])

    async def read(self, which: Which) -> Page | None:
        """Have a worker read the log and encode the page."""
        path = log_of(self._folder, which.session)
        page: Page | None = await self._run(f"read {path}", "page", self._folder, which)
        return page

    async def export(self, order: Order) -> Exported | None:
        """Have a worker read, render and write."""
        try:
            done: Exported | None = await self._workers.finish("export", self._folder, self._exports, order)
        except OSError as error:
            action = f"export {log_of(self._folder, order.session)}"
            raise IoFailed(self._site.component, action, error) from error
        return done

    async def active(self, lines: int, since: float) -> bytes | None:
        """Have a worker read the end of the bus's log."""
        path = log_of(self._folder, BUS)
        found: bytes | None = await self._run(f"read {path}", "active", self._folder, lines, since)
        return found

    # a scan

    async def _scanned(self, told: Told | None, *, last: bool) -> bool:
        """Scan; False when a worker died meanwhile. Raises `WorkerFailed` for that if it is the last try."""
        try:
            await self._scan(told)
        except WorkerFailed:
            if last:
                raise
            return False
        return True

    async def _scan(self, told: Told | None) -> None:
        """Have the keeper look, and all workers read what it tells of."""
        rows: list[Summary] = []
        parts: list[asyncio.Task[Read]] = []
        over = False

        def heard(word: Any) -> None:
            if over:  # the worker has not stopped yet
                return
            if type(word) is Part:
                self._move(told, total=word.files)
                parts.append(asyncio.create_task(self._read(word, heard, told)))
            else:
                rows.extend(map(Summary._make, word))

        await self._taken_in()
        self._progress = Progress(0, 0)
        try:
            where = (self._folder, self._index, self._version)
            plan: Plan = await self._run(f"list {self._folder}", "refresh", *where, told=heard, at=KEEPER)
            seen = plan.total - self._progress.total
            self._move(told, done=seen, total=seen, read=plan.rest.files)
            reads = [plan.rest, *await asyncio.gather(*parts)]
        finally:
            over = True
            await _ended(parts)
        await self._take(plan, rows, reads)
        _tell(told, self._progress._replace(removed=len(plan.gone)))

    async def _read(self, part: Part, heard: Callable[[Any], None], told: Told | None) -> Read:
        read: Read = await self._run(f"list {self._folder}", "read", self._folder, part.todo, told=heard)
        self._move(told, done=part.files, read=part.files)
        return read

    def _move(self, told: Told | None, done: int = 0, total: int = 0, read: int = 0) -> None:
        """Be so much further, of so much more."""
        now = self._progress
        self._progress = Progress(now.done + done, now.total + total, now.read + read)
        _tell(told, self._progress)

    async def _take(self, plan: Plan, rows: list[Summary], reads: Sequence[Read]) -> None:
        """Have what was told on top of what is known; the same object if that changes nothing.

        The keeper takes it in later: nobody has to wait for that but the next scan.
        """
        missing = [session for read in reads for session in read.missing]
        if plan.whole or plan.gone or missing or rows:
            if not plan.whole:
                other = {*plan.gone, *missing, *(row.session for row in rows)}
                rows += (row for row in self._known if row.session not in other)
            known = tuple(await sorted_in_turns(rows, key=itemgetter(0)))
            self._known = self._known if known == self._known else known
            found = [read.found for read in reads]
            self._settling = self._own(self._settle(plan.base, plan.gone, found))
        failed = sum(read.failed for read in reads)
        if failed:
            log.warning("conversations could not be read", count=failed)

    # the index

    async def _taken_in(self) -> None:
        """Wait until the keeper has what the last scan found."""
        if self._settling is not None:
            await asyncio.wait([self._settling])

    async def _settle(self, base: str, gone: Sequence[str], found: Sequence[bytes]) -> None:
        """Have the keeper take in what was found; if it cannot, the next scan is told everything."""
        version = base
        for part in found:
            where = (self._folder, self._index, version)
            version = await self._in_background("settle", *where, gone, part, at=KEEPER) or ""
            gone = ()
        self._unsaved = self._unsaved or version != self._version
        self._version = version
        now = asyncio.get_running_loop().time()
        if self._unsaved and now - self._saved_at > SAVED_S:
            self._saved_at = now
            await self._save()

    async def _save(self) -> None:
        self._unsaved = False
        await self._in_background("keep", self._folder, self._index, at=KEEPER)

    async def _in_background(self, name: str, *args: Any, **options: Any) -> Any:
        """A job whose failure costs nothing but time later, and gives None."""
        try:
            return await self._workers.run(name, *args, **options)
        except (KsiError, OSError) as error:
            log.warning("done without", job=name, reason=str(error))
            return None

    def _own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # jobs

    async def _find(self, part: list[str], wanted: Wanted) -> list[Found]:
        found: list[Found] = await self._run(f"search {self._folder}", "find", self._folder, part, wanted)
        return found

    async def _run(self, action: str, name: str, *args: Any, **options: Any) -> Any:
        try:
            return await self._workers.run(name, *args, **options)
        except OSError as error:
            raise IoFailed(self._site.component, action, error) from error


def _parts(among: Sequence[Summary]) -> Iterator[list[str]]:
    """Conversations in their order, a few at a time."""
    part: list[str] = []
    size = 0
    for one in among:
        if part and (size + one.size > PART or len(part) == SESSIONS):
            yield part
            part, size = [], 0
        part.append(one.session)
        size += one.size
    if part:
        yield part


def _tell(told: Told | None, progress: Progress) -> None:
    if told is not None:
        told(progress)


async def _ended(tasks: Sequence[asyncio.Task[Any]] | deque[asyncio.Task[Any]]) -> None:
    """See that none of them goes on."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
