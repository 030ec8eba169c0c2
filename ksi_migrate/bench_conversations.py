"""What a listing and a search of conversations cost: at first, with nothing changed, with one line more."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate import bench_history as history
from ksi_migrate import bench_sessions as made
from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import COLUMNS, STAGES
from ksi_migrate.bench_figures import Case, Round, case_of
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_rounds import observed, round_of
from ksi_migrate.bench_sessions import HOLDERS, NEVER, RARE, Sessions
from ksi_migrate.bench_sizes import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_migrate.bench_history import History
    from ksi_migrate.idle import IdleHeartbeat

MANY: Final = (10_000, 20, 200)
LONG: Final = (200, 2_000, 500)
"""Sessions, lines of each, bytes of a line, about."""

GROWING: Final = (20, 200, 1_000, 2_000)
"""Numbers of sessions for the chart, each of as many lines as those of `MANY`."""

MOST_ROUNDS: Final = 7
"""Each takes seconds. On a machine that changes its speed a median of three is a matter of luck."""

ROUND_S: Final = 0.3
"""How long a round takes at least where a call is quick."""

SHOWN: Final = 100
"""Rows of a listing, as many as a client gets that does not ask for more."""


class What(Enum):
    """What is measured; the value is what its name in the document begins with."""

    FIRST = "first refresh"
    RESTARTED = "first refresh after a restart"
    UNCHANGED = "nothing changed"
    APPENDED = "one line appended"
    RARE = f"search, a word in {HOLDERS} conversations"
    NEVER = "search, a word in none"


FRESH: Final = (What.FIRST, What.RESTARTED)
"""One call to a room that was just opened; the others are repeated on one that has listed before."""

SEARCHED: Final = {What.RARE: RARE, What.NEVER: NEVER}
BARS: Final = {
    What.FIRST: "at least 3 times faster than sync for short conversations, 5 times for long ones",
    What.UNCHANGED: "at least 15 times faster than sync for short conversations, 100 times for long ones",
    What.APPENDED: "at least 100 times faster than sync",
    What.RARE: "at least 3 times faster than sync",
    What.NEVER: "at least 3 times faster than sync",
}
STALL_BAR: Final = "loop stall of at most 15 ms, p99 2 ms"


@dataclass(frozen=True, slots=True)
class Conversations:
    """One case over a set of sessions."""

    area: Area
    sessions: Sessions
    what: What

    @property
    def name(self) -> str:
        """As the document names it."""
        return f"{self.what.value}, {self.sessions.words}"

    @property
    def bar(self) -> str:
        """What is asked of async, in words."""
        return "; ".join(filter(None, (BARS.get(self.what), STALL_BAR)))

    def steps(self, asked: int) -> int:
        """One for each round."""
        return min(asked, MOST_ROUNDS)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds. Raises `Unanswered`, `Broken`, `IdleLost`."""
        found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
        async with AsyncExitStack() as stack:
            columns = {} if self.what in FRESH else await self._filled(stack)
            for number in range(self.steps(asked)):
                tell(f"{self.area.name}: {self.name}")
                proof = _Proof(f"{self.area.name}, {self.name}")
                for column in rotated(COLUMNS, number):
                    if column in columns:
                        taken = await self._round(column, columns[column], idle, proof)
                    else:
                        taken = await self._first(column, idle, proof)
                    found[column].append(taken)
        return replace(case_of(self.name, 1, found), bar=self.bar)

    async def _filled(self, stack: AsyncExitStack) -> dict[str, History]:
        """Every column, open, with its cache filled."""
        columns = {}
        for column in COLUMNS:
            columns[column] = await stack.enter_async_context(self._opened(column, forget=False))
            await columns[column].listing(SHOWN)
        return columns

    async def _first(self, column: str, idle: IdleHeartbeat, proof: _Proof) -> Round:
        if self.what is What.RESTARTED and column == "async":  # nothing else keeps anything on the disk
            async with self._opened(column, forget=False) as one:
                await one.listing(SHOWN)
        async with self._opened(column, forget=self.what is What.FIRST) as one:
            return await self._round(column, one, idle, proof)

    async def _round(self, column: str, one: History, idle: IdleHeartbeat, proof: _Proof) -> Round:
        load = Load(one, self.sessions, self.what)
        taken = await observed(idle, one.where, load.run(), workers=column == "async")
        await self._prove(one, load.answer, proof)
        more = {"call_ms": sum(load.waited) / len(load.waited)}
        if self.what is What.UNCHANGED:
            more["floor_ms"] = made.floor_ms(self.sessions.folder)
        found = round_of(taken, len(load.waited), load.waited)
        return replace(found, seconds=sum(load.waited) / 1e3, more=more)

    async def _prove(self, one: History, answer: bytes, proof: _Proof) -> None:
        """Raise `Broken` unless the answer is right, and the same on both sides; while nothing is counted."""
        if self.what in SEARCHED:
            reply = json.loads(answer)
            made.prove_search(one.where, reply, self.sessions.matches() if self.what is What.RARE else [])
        else:
            reply = await one.listing(self.sessions.count + 1)
            made.prove_listing(one.where, reply, self.sessions)
            proof.beginning(one.where, json.loads(answer), reply)
        if self.what is not What.APPENDED:  # there each column finds more lines than the last
            proof.same(one.where, reply)

    def _opened(self, column: str, *, forget: bool) -> AbstractAsyncContextManager[History]:
        where = f"{self.area.name}, {self.name}, {column}"
        return history.opened(self.area, column, self.sessions, where, forget=forget)


class Load:
    """Calls one after the other, at least one, until the time is over; each wait in ms."""

    def __init__(self, one: History, sessions: Sessions, what: What) -> None:
        self._one = one
        self._sessions = sessions
        self._what = what
        self.waited: list[float] = []
        self.answer = b""

    async def run(self) -> None:
        """Until `ROUND_S` is over; where only the first call is wanted the loop is watched as long."""
        until = time.perf_counter() + ROUND_S
        while not self.waited or (self._what not in FRESH and time.perf_counter() < until):
            event, data = self._request()
            begun = time.perf_counter()
            self.answer = await self._one.ask(event, data)
            self.waited.append(1e3 * (time.perf_counter() - begun))
            await asyncio.sleep(0)  # the client has its reply before it asks again: others get their turn
        await asyncio.sleep(max(0.0, until - time.perf_counter()))

    def _request(self) -> tuple[str, dict[str, Any]]:
        """The next request, before which the minute passes for which a cache holds."""
        if self._what in SEARCHED:
            return history.SEARCH, {"query": SEARCHED[self._what]}
        if self._what is What.APPENDED:
            self._sessions.append()
        self._one.outdate()
        return history.LIST, {"limit": SHOWN}


class _Proof:
    """What the sides answered in one round: the same, whichever was asked first."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sides: list[dict[str, Any]] = []

    def same(self, where: str, reply: dict[str, Any]) -> None:
        """Raise `Broken` when the other side answered something else; the reference is no side."""
        if where.rpartition(", ")[2] not in STAGES:
            return
        self._sides.append(made.comparable(reply))
        if self._sides[0] != self._sides[-1]:
            raise Broken(self._where, "both sides were asked the same and answered differently")

    def beginning(self, where: str, answer: dict[str, Any], whole: dict[str, Any]) -> None:
        """Raise `Broken` unless the answer that was measured is the beginning of the whole listing."""
        if answer["conversations"] != whole["conversations"][: len(answer["conversations"])]:
            raise Broken(where, "the listing that was measured is not the beginning of the whole one")


def parts(area: Area, place: Path) -> Iterator[Conversations | Sizes]:
    """All cases of the room, below `place`."""
    many, long = (Sessions(place / f"{area.name}-{size[0]}", *size) for size in (MANY, LONG))
    yield from (Conversations(area, many, what) for what in (What.FIRST, What.UNCHANGED))
    yield from (Conversations(area, long, what) for what in What)
    grown = [Sessions(place / f"{area.name}-grown-{count}", count, *MANY[1:]) for count in GROWING]
    for what in (What.FIRST, What.UNCHANGED):
        yield Sizes(tuple((one.count, Conversations(area, one, what)) for one in grown), "sessions")
