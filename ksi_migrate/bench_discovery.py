"""What detailed discovery costs when examples are mined and when they are known, and searches at once."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.hub import Hub
from ksi_daemon.router import Router
from ksi_daemon.site import Site
from ksi_migrate import bench_source as made
from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import COLUMNS, REFERENCE, STAGES
from ksi_migrate.bench_discovery_socket import MOST_ROUNDS, ThroughSocket
from ksi_migrate.bench_figures import Case, Round, case_of, percentile
from ksi_migrate.bench_place import settings_of
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_room import Room, served, together
from ksi_migrate.bench_rounds import observed, round_of
from ksi_migrate.bench_source import Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_daemon.settings import Settings
    from ksi_migrate.idle import IdleHeartbeat

FILES: Final = 2_000
SEARCHES: Final = 20
ROUND_S: Final = 0.3
"""How long a round takes at least where a call is quick."""

LOOKED_S: Final = 0.3
"""Seconds after a first look, so that the request that is measured has to look itself."""


class What(Enum):
    """What is measured; the value is what its name in the document begins with."""

    COLD = "details, examples mined"
    WARM = "details, examples known"
    DIFFERENT = f"{SEARCHES} different searches at once"
    EQUAL = f"{SEARCHES} equal searches at once"


CALLERS: Final = {What.COLD: 1, What.WARM: 1, What.DIFFERENT: SEARCHES, What.EQUAL: SEARCHES}


BARS: Final = {
    What.COLD: "at least 10 times faster than sync",
    What.WARM: "p50 within 2 ms of the same request without mining, no rg, no file opened",
    What.DIFFERENT: "at most 1.2 times the same one by one",
    What.EQUAL: "one rg for all",
}
STALL_BAR: Final = "loop stall of at most 5 ms"


@dataclass(frozen=True, slots=True)
class Discovery:
    """One case over a source tree."""

    area: Area
    root: Path
    source: Source
    what: What

    @property
    def name(self) -> str:
        """As the document names it."""
        return f"{self.what.value}, {self.source.files:,} files"

    def rounds(self, column: str, asked: int) -> int:
        """How many rounds of a column: the blocking ones take seconds to mine."""
        return 1 if self.what is What.COLD and column != "async" else min(asked, MOST_ROUNDS)

    def steps(self, asked: int) -> int:
        """How often `measure` tells that it goes on."""
        return self.rounds("async", asked)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds. Raises `Unanswered`, `Broken`, `IdleLost`."""
        self.source.make()
        columns = tuple(STAGES) if self.what is What.WARM else COLUMNS
        found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
        for number in range(self.steps(asked)):
            tell(f"{self.area.name}: {self.name}")
            for column in rotated(columns, number):
                if number < self.rounds(column, asked):
                    found[column].append(await self._round(column, number, idle))
        case = case_of(self.name, CALLERS[self.what], found, self._note(asked))
        return replace(case, bar=f"{BARS[self.what]}; {STALL_BAR}")

    async def _round(self, column: str, number: int, idle: IdleHeartbeat) -> Round:
        where = f"{self.area.name}, {self.name}, {column}"
        if column == REFERENCE:
            return await self._reference(where, number, idle)
        async with self._opened(column, where) as room:
            if self.what is What.WARM:
                return await self._warm(room, idle)
            if self.what is What.COLD:
                found = await _timed(idle, where, room.ask("system:discover", {"detail": True}))
                await self._prove(room)
                return found
            return await self._searched(room, number, idle)

    async def _reference(self, where: str, number: int, idle: IdleHeartbeat) -> Round:
        """The original's calls, one after the other."""
        tree = self.source.root

        async def mine() -> None:
            for event in range(made.EVENTS):
                examples = made.mined(tree, made.name_of(event))
                if len(examples) > 2:  # noqa: PLR2004 - at most two
                    raise Broken(where, "more examples than there may be")

        async def search() -> None:
            for pattern in self._patterns(number, "at once"):
                if made.searched(tree, pattern) != self.source.files:
                    raise Broken(where, f"{pattern} is not in every file")
                await asyncio.sleep(0)

        if self.what is What.COLD:
            return await _timed(idle, where, mine())
        return await _timed(idle, where, search(), calls=SEARCHES)

    async def _warm(self, room: Room, idle: IdleHeartbeat) -> Round:
        """The same request again and again, and beside it without a side that could mine."""
        await room.ask("system:discover", {"detail": True})
        bare = await _waits(self._bare())
        waited: list[float] = []
        taken = await observed(idle, room.where, _again(room.ask, waited))
        p50 = percentile(waited, 50) or 0.0
        more = {"p50_ms": p50, "without_mining_p50_ms": percentile(bare, 50) or 0.0}
        return replace(round_of(taken, len(waited), waited), more=more)

    async def _searched(self, room: Room, number: int, idle: IdleHeartbeat) -> Round:
        """At once; different ones first one after the other, for comparison."""
        if self.what is What.EQUAL:
            return await self._at_once(room, number, idle)
        begun = time.perf_counter()
        for pattern in self._patterns(number, "one by one"):
            await self._search(room, pattern)
        one_by_one_s = time.perf_counter() - begun
        found = await self._at_once(room, number, idle)
        more = {"one_by_one_s": one_by_one_s, "times_one_by_one": found.seconds / one_by_one_s}
        return replace(found, more={**found.more, **more})

    async def _at_once(self, room: Room, number: int, idle: IdleHeartbeat) -> Round:
        work = together(self._search(room, pattern) for pattern in self._patterns(number, "at once"))
        return await _timed(idle, room.where, work, calls=SEARCHES)

    async def _search(self, room: Room, pattern: str) -> None:
        most = self.source.files
        found = await room.ask("discovery:search", {"pattern": pattern, "max_count": most})
        if found["count"] != most:
            raise Broken(room.where, f"{pattern} was found {found['count']} times, not {most}")

    def _patterns(self, number: int, how: str) -> list[str]:
        """Each is in every file; none is asked for twice."""
        mark = f"{'' if how == 'at once' else '(?:)'}{'()' * number}"
        every = [f"{mark}Do step {at} of module" for at in range(SEARCHES)]
        return every[:1] * SEARCHES if self.what is What.EQUAL and how == "at once" else every

    async def _prove(self, room: Room) -> None:
        """Raise `Broken` unless the examples that were mined are right."""
        for event in (0, 1, made.EVENTS - 1):
            shown = await room.ask("system:help", {"event": made.name_of(event)})
            self.source.prove(room.where, event, [one for one in shown["examples"] if "data" in one])

    @asynccontextmanager
    async def _opened(self, column: str, where: str) -> AsyncIterator[Room]:
        """The room, its workers there, the disk's pages read."""
        async with served(self._area(), column, self._settings(), where) as room:
            await room.side.mine(())
            made.searched(self.source.root, "nothing like this")
            await asyncio.sleep(LOOKED_S if self.what is What.COLD else 0)
            yield room

    def _bare(self) -> Callable[[str, dict[str, Any]], Awaitable[Any]]:
        router = Router()
        service = self.area.service(_Nothing(), Site(self.area.name, self._settings(), hub=Hub(router)))
        router.add((*made.neighbours(), *service.events()))
        return router.emit

    def _area(self) -> Area:
        return replace(self.area, exercise=replace(self.area.exercise, neighbours=made.neighbours))

    def _settings(self) -> Settings:
        fresh = LOOKED_S / 10 if self.what is What.COLD else 60.0
        most = max(self.source.files, 1)
        return settings_of(
            self.root / self.area.name,
            discovery_tree=self.source.root,
            discovery_fresh=fresh,
            discovery_max_matches=most,
            discovery_max_bytes=most * 1024,
        )

    def _note(self, asked: int) -> str:
        if self.what is not What.COLD or self.rounds("async", asked) == 1:
            return ""
        return "reference and sync: 1 round, since each takes seconds"


class _Nothing:
    """A side that has no examples and looks for none."""

    async def mine(self, events: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
        """None."""
        return dict.fromkeys(events, ())


async def _timed(idle: IdleHeartbeat, where: str, work: Awaitable[Any], calls: int = 1) -> Round:
    taken = await observed(idle, where, work)
    found = round_of(taken, calls, [1e3 * taken.seconds])
    return replace(found, more={"wall_s": taken.seconds})


async def _waits(ask: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> list[float]:
    waited: list[float] = []
    await _again(ask, waited)
    return waited


async def _again(ask: Callable[[str, dict[str, Any]], Awaitable[Any]], waited: list[float]) -> None:
    """The detailed request until the time is over; each wait in ms."""
    until = time.perf_counter() + ROUND_S
    while not waited or time.perf_counter() < until:
        begun = time.perf_counter()
        await ask("system:discover", {"detail": True})
        waited.append(1e3 * (time.perf_counter() - begun))
        await asyncio.sleep(0)  # the client has its reply before it asks again: others get their turn


def parts(area: Area, place: Path) -> Iterator[Discovery | ThroughSocket]:
    """All cases of the room, below `place`."""
    source = Source(place / f"{area.name}-source", FILES)
    for what in What:
        yield Discovery(area, place, source, what)
    yield ThroughSocket(area, place / f"{area.name}-socket", source)
