"""The three columns over one set of conversations: the room on either side, and the original's calls."""

from __future__ import annotations

import json
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from ksi_daemon import wire
from ksi_migrate.bench_columns import REFERENCE
from ksi_migrate.bench_place import settings_of
from ksi_migrate.bench_room import NOW, served
from ksi_migrate.bench_scan import Scan
from ksi_migrate.bench_sessions import name_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ksi_daemon.area import Area
    from ksi_migrate.bench_room import Room
    from ksi_migrate.bench_sessions import Sessions

OUTDATED_S: Final = 61.0
"""After so long a listing looks again: the cache of the original holds for 60 s (contract 3.3)."""

LIST: Final = "conversation:list"
SEARCH: Final = "conversation:search"


@dataclass(slots=True)
class Clock:
    """The room's clock: it stands still but for what we let pass, so nobody waits for a minute."""

    now: float = NOW

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


class Calls(Protocol):
    """One request, answered as it goes over the wire: what encodes the reply counts too."""

    async def ask(self, event: str, data: dict[str, Any]) -> bytes:
        """The encoded reply."""


@dataclass(slots=True)
class History:
    """An open column."""

    where: str
    calls: Calls
    clock: Clock = field(default_factory=Clock)

    async def ask(self, event: str, data: dict[str, Any]) -> bytes:
        """One request."""
        return await self.calls.ask(event, data)

    async def listing(self, limit: int) -> dict[str, Any]:
        """The latest conversations, from the cache while that holds."""
        found: dict[str, Any] = json.loads(await self.ask(LIST, {"limit": limit}))
        return found

    def outdate(self) -> None:
        """Let the cache become too old."""
        self.clock.now += OUTDATED_S


@asynccontextmanager
async def opened(
    area: Area, column: str, sessions: Sessions, where: str, *, forget: bool = False
) -> AsyncIterator[History]:
    """A column that has listed nothing yet; with `forget` nothing that was kept on the disk is there."""
    sessions.make()
    settings = settings_of(sessions.root)
    if forget:
        shutil.rmtree(settings.cache_dir, ignore_errors=True)
    clock = Clock()
    if column == REFERENCE:
        scan = Scan(settings.response_log_dir, settings.root)
        yield History(where, _Reference(scan, clock), clock)
        return
    async with served(area, column, settings, where, clock=clock) as room:
        await room.ask("conversation:get", {"session_id": name_of(0), "limit": 1})  # now its workers are up
        yield History(where, _Asked(room), clock)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The room's own handlers, asked as a client asks them."""

    room: Room

    async def ask(self, event: str, data: dict[str, Any]) -> bytes:
        return wire.encode(await self.room.ask(event, data))


@dataclass(frozen=True, slots=True)
class _Reference:
    """The original's calls, and its encoder."""

    scan: Scan
    clock: Clock

    async def ask(self, event: str, data: dict[str, Any]) -> bytes:
        if event == SEARCH:
            return json.dumps(self.scan.search(data["query"])).encode()
        return json.dumps(self.scan.listing(self.clock.now, data["limit"])).encode()
