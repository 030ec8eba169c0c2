"""Configuration that never blocks: each operation is a job of a worker process, a file's in their order."""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ksi_daemon.config import core, jobs
from ksi_daemon.config.turns import Turns
from ksi_daemon.errors import ComponentBusy, ComponentClosed, OutcomeUnknown, WorkerFailed
from ksi_daemon.workers import Workers

if TYPE_CHECKING:
    from ksi_daemon.config.core import Checked, Found, Kept, RolledBack, Target, Written
    from ksi_daemon.site import Site

READING = frozenset({"get", "validate"})
"""What has no outcome that a caller who has gone would leave behind."""

MANY_LARGE = 1000
"""Large files that are remembered."""


class AsyncConfigFiles:
    """The candidate. Needs a running loop from `open` on.

    A file has one worker of its own choice, which keeps its document and takes its calls in their order. The
    last worker is for large files only, so that none of the others waits for one.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._place = core.place(site)
        self._large: dict[str, None] = {}
        self._workers: Workers
        self._turns: list[Turns] = []

    async def open(self) -> None:
        """Begin to start the workers."""
        count = min(2, os.cpu_count() or 1) + 1
        self._workers = Workers(self._site.component, jobs.JOBS, self._site.settings, count=count)
        self._workers.open()
        patience = self._site.settings.call_timeout
        self._turns = [Turns(self._site.component, patience) for _ in range(count)]

    async def close(self) -> None:
        """Let the jobs under way end, and the workers with them."""
        await self._workers.close(self._site.settings.stop_timeout)

    def pending(self) -> str | None:
        """How many workers have something to do, in words, or None."""
        busy = sum(turns.taken for turns in self._turns)
        return f"{busy} of {len(self._turns)} configuration workers" if busy else None

    async def get(self, target: Target, key: str) -> Found:
        """From the worker's memory, if the file is what it was."""
        found: Found = await self._do("get", target, key)
        return found

    async def put(self, target: Target, key: str, value: bytes, backup: bool, now: float) -> Written:
        """In the file's worker, to the end even if the caller goes."""
        written: Written = await self._do("put", target, key, value, backup, now)
        return written

    async def validate(self, target: Target, schema: Target | None) -> Checked:
        """In the file's worker."""
        checked: Checked = await self._do("validate", target, schema)
        return checked

    async def backup(self, target: Target, name: str, now: float) -> Kept:
        """In the file's worker, to the end even if the caller goes."""
        kept: Kept = await self._do("backup", target, name, now)
        return kept

    async def rollback(self, target: Target, name: str, now: float) -> RolledBack:
        """In the file's worker, to the end even if the caller goes."""
        rolled: RolledBack = await self._do("rollback", target, name, now)
        return rolled

    async def _do(self, name: str, target: Target, *args: Any) -> Any:
        if not self._turns:
            raise ComponentClosed(self._site.component)
        key = f"{target.base}/{target.path}"
        last = len(self._turns) - 1
        if key not in self._large:
            at = zlib.crc32(key.encode()) % last
            found = await self._at(at, name, target, args, any_size=False)
            if found != jobs.ELSEWHERE:
                return found
            self._remember(key)
        return await self._at(last, name, target, args, any_size=True)

    def _remember(self, key: str) -> None:
        self._large[key] = None
        if len(self._large) > MANY_LARGE:
            del self._large[next(iter(self._large))]

    async def _at(self, at: int, name: str, target: Target, args: tuple[Any, ...], *, any_size: bool) -> Any:
        """What comes of a job at one worker. One that dies while it writes leaves the outcome open."""
        said: list[str] = []
        run = self._workers.run if name in READING else self._workers.finish
        await self._turns[at].take()
        moved = True
        try:
            place = replace(self._place, durability=self._site.durability)
            return await run(name, place, any_size, target, *args, at=at, told=said.append)
        except (WorkerFailed, ComponentBusy) as error:
            moved = False
            if not said:
                raise
            cause = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            raise OutcomeUnknown(self._site.component, f"{name} {target.path}", cause) from error
        finally:
            self._turns[at].give(moved=moved)
