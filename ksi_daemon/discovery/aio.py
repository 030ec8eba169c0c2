"""Discovery without blocking: one `rg` for all patterns, files parsed in worker processes."""

from __future__ import annotations

import asyncio
import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from ksi_daemon import children
from ksi_daemon.discovery import core, output
from ksi_daemon.discovery.cache import Cache
from ksi_daemon.discovery.core import Example
from ksi_daemon.discovery.failures import RgFlood, RgTooSlow, not_seen
from ksi_daemon.discovery.jobs import JOBS
from ksi_daemon.discovery.places import Places
from ksi_daemon.discovery.shared import Shared
from ksi_daemon.discovery.tree import Look
from ksi_daemon.errors import ComponentClosed, IoFailed, WorkerFailed
from ksi_daemon.lane import Hop, Lane
from ksi_daemon.worker import NICE
from ksi_daemon.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.discovery.core import Found, Match, Query
    from ksi_daemon.discovery.jobs import Row
    from ksi_daemon.discovery.shared import Say
    from ksi_daemon.site import Site

T = TypeVar("T")
Files = list[tuple[str, tuple[str, ...]]]

SWEEP: Final = 2.0
"""Seconds that a start waits for the end of what an earlier daemon left."""

CLOSE: Final = 0.5
"""Seconds that what runs, the workers and the lane have for their end."""

PART: Final = 20
"""Files that a worker parses before another one's turn comes."""

log = structlog.get_logger("ksi.discovery")


class AsyncCodeSearch:
    """The candidate. Needs a running loop from `open` on.

    Small blocking calls are done on one lane, looking at the tree and parsing by workers, and `rg` is a child
    of its own, at most `discovery_parallel` at a time. Equal questions that come meanwhile share one answer.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._settings = site.settings
        self._places = Places(site)
        self._cache = Cache(site.settings.discovery_fresh)
        self._shared = Shared(site.component)
        self._slots = asyncio.Semaphore(site.settings.discovery_parallel)
        self._hurry = asyncio.Event()
        self._lane: Lane
        self._workers: Workers
        self._closed = True

    async def open(self) -> None:
        """Begin with nothing known; end what an earlier daemon left running."""
        self._lane = Lane(f"ksi-{self._site.component}")
        self._workers = Workers(self._site.component, JOBS, self._settings)
        self._workers.open()
        self._cache.clear()
        self._hurry.clear()
        self._closed = False
        sweeping: Hop[None] = Hop(asyncio.get_running_loop())
        self._lane.submit(self._places.begin, sweeping.end)
        await asyncio.wait([sweeping.waiter], timeout=SWEEP)
        if not sweeping.over:
            log.warning("still looking for what an earlier daemon left")

    async def close(self) -> None:
        """Kill what still runs; whoever waits for it gets `ComponentClosed`."""
        self._closed = True
        self._hurry.set()
        await self._shared.close(CLOSE)
        await self._workers.close(CLOSE)
        await self._lane.close(CLOSE)

    def pending(self) -> str | None:
        """How much is under way, in words; None for nothing."""
        running = self._shared.count()
        return f"{running} searches" if running else None

    async def mine(self, events: tuple[str, ...]) -> dict[str, tuple[Example, ...]]:
        """All in one run of `rg`, but for those that are known."""
        await self._look()
        known = self._cache.examples(events)
        missing = tuple(event for event in core.minable(events) if event not in known)
        if missing:
            known |= await self._shared.run(("mine", missing), partial(self._mine, missing))
        return {event: known.get(event, ()) for event in events}

    async def search(self, query: Query, told: Callable[[Match], None] | None) -> Found:
        """Told as they are found; ended when a limit is reached."""
        await self._look()
        found = self._cache.search(query)
        if found is not None:
            core.tell(found.matches, told)
            return found
        shared: Found = await self._shared.run(query, partial(self._search, query), told)
        return shared

    async def _mine(self, events: tuple[str, ...], _say: Say) -> dict[str, tuple[Example, ...]]:
        epoch, whole = self._cache.mined_epoch, True
        files: dict[str, set[str]] = {}
        for pattern in core.patterns_of_all(events):
            found = output.Emitters(files)
            ended = await self._emitters(pattern, found)
            whole = found.messages.whole(ended.code, ended.stderr) and whole
        rows = await self._parsed(_by_file(core.first_files(files)))
        of: dict[str, list[Example]] = {event: [] for event in events}
        for event, row in rows:
            of[event].append(Example(*row))
        examples = {event: core.chosen(mine) for event, mine in of.items()}
        if whole:
            self._cache.keep_examples(examples, epoch)
        return examples

    async def _emitters(self, pattern: str, found: output.Emitters) -> children.Finished:
        largest = self._settings.discovery_max_file_bytes
        argv = core.argv_of_mining(pattern, largest, self._places.left_out)
        try:
            return await self._rg(argv, found.feed)
        except children.Overtime:
            raise RgTooSlow(self._settings.discovery_timeout) from None
        except children.Flood:
            raise RgFlood(core.MOST_OUTPUT) from None

    async def _parsed(self, files: Files) -> list[Row]:
        """The examples in all of them, parsed by all workers side by side."""
        parts = [files[begin : begin + PART] for begin in range(0, len(files), PART)]
        found = await asyncio.gather(*map(self._part, parts), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [row for part in found for row in part]  # type: ignore[union-attr]  # no exception among them

    async def _part(self, files: Files) -> list[Row]:
        """A file that kills the worker that parses it costs the examples of its part, and no more."""
        tree, largest = self._places.tree, self._settings.discovery_max_file_bytes
        try:
            rows: list[Row] = await self._workers.run("examples", tree, files, largest)
        except WorkerFailed as error:
            log.warning("files not parsed", first=files[0][0], files=len(files), error=str(error))
            return []
        return rows

    async def _search(self, query: Query, say: Say) -> Found:
        epoch, matches = self._cache.searched_epoch, output.Matches(query)
        largest = self._settings.discovery_max_file_bytes
        found = await self._found(core.argv_of(query, largest, self._places.left_out), matches, say)
        self._cache.keep_search(query, found, epoch)
        return found

    async def _found(self, argv: tuple[str, ...], matches: output.Matches, say: Say) -> Found:
        def told(piece: bytes) -> None:
            for match in matches.feed(piece):
                say(match)
            if matches.full:
                raise output.Enough

        try:
            ended = await self._rg(argv, told)
        except output.Enough:
            return matches.found(0, b"")
        except children.Overtime:
            return _rest(matches, "time", say)
        except children.Flood:
            return _rest(matches, "bytes", say)
        return matches.found(ended.code, ended.stderr)

    async def _rg(self, argv: tuple[str, ...], told: Callable[[bytes], None]) -> children.Finished:
        """One run, when its turn has come."""
        async with self._slots:
            program = await self._blocking(self._places.program, "look for rg")
            command = children.Command(
                argv=(program, *argv),
                cwd=self._places.tree,
                env=self._places.environment(),
                mark=self._places.mark(),
                stdin=b"",
                deadline_s=self._settings.discovery_timeout,
                grace_s=0.0,
                most_bytes=core.MOST_OUTPUT,
                scratch=self._places.scratch,
                nice=NICE,
            )
            try:
                return await children.run(command, self._lane, hurry=self._hurry, told=told)
            except OSError as error:
                raise IoFailed(self._site.component, f"run {program}", error) from error

    async def _look(self) -> None:
        """Have the tree looked at again, if the last look was too long ago."""
        if self._closed:
            raise ComponentClosed(self._site.component)
        if self._cache.due(asyncio.get_running_loop().time()):
            await self._shared.run("look", self._see)

    async def _see(self, _say: Say) -> None:
        now, tree = asyncio.get_running_loop().time(), self._places.tree
        limit = self._settings.discovery_timeout
        try:
            found = await self._workers.run("look", tree, self._places.left_out, limit)
        except OSError as error:
            raise not_seen(self._site.component, tree, error) from error
        self._cache.looked(Look(*found), now)

    async def _blocking(self, call: Callable[[], T], action: str) -> T:
        """What `call()` returns or raises on the lane; `IoFailed` with ETIMEDOUT when the lane is stuck."""
        loop = asyncio.get_running_loop()
        hop: Hop[T] = Hop(loop)
        self._lane.submit(call, hop.end)
        late = IoFailed(
            self._site.component, action, TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        )
        timer = loop.call_later(self._settings.call_timeout, hop.end, None, late)
        try:
            return await hop.outcome()
        finally:
            timer.cancel()


def _by_file(emitting: dict[str, list[str]]) -> Files:
    """File by file the events to look for there."""
    found: dict[str, list[str]] = {}
    for event, paths in emitting.items():
        for path in paths:
            found.setdefault(path, []).append(event)
    return [(path, tuple(events)) for path, events in sorted(found.items())]


def _rest(matches: output.Matches, stopped: str, say: Say) -> Found:
    """What was found by then, of which the last was not complete."""
    known, found = matches.count, matches.cut_off(stopped)
    for match in found.matches[known:]:
        say(match)
    return found
