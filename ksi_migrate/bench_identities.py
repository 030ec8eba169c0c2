"""Updates of stored identities: one after the other, and many at once, with much in the file."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ksi_daemon.connection import SLICE
from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import COLUMNS, STAGES
from ksi_migrate.bench_figures import Case, Round, case_of
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_room import together
from ksi_migrate.bench_rounds import observed, round_of
from ksi_migrate.bench_store import Store, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_migrate.idle import IdleHeartbeat

ROUND_S: Final = 0.5
"""How long each half of a round takes at least."""

MOST_ROUNDS: Final = 3
LEAST: Final = 2
"""Calls of each half, however slow they are."""

ONE_BY_ONE: Final = 1
AT_ONCE: Final = 1_000
SAMPLE: Final = 5
"""Of so many at once that many are made on the columns where each costs a whole save of its own."""


@dataclass(frozen=True, slots=True)
class Updates:
    """One case: so many callers at once update identities, of which `stored` are in the file."""

    area: Area
    root: Path
    stored: int
    callers: int
    blocked_rounds: int = MOST_ROUNDS

    @property
    def name(self) -> str:
        """As the document names it."""
        how = "1 update at a time" if self.callers == ONE_BY_ONE else f"{self.callers:,} updates at once"
        return f"{how}, {self.stored:,} stored"

    def rounds(self, column: str, asked: int) -> int:
        """How many rounds of a column."""
        return min(asked, MOST_ROUNDS if column == "async" else self.blocked_rounds)

    def steps(self, asked: int) -> int:
        """How often `measure` tells that it goes on."""
        return self.rounds("async", asked)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds. Raises `Unanswered`, `Broken`, `IdleLost`."""
        found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
        for number in range(self.steps(asked)):
            tell(f"{self.area.name}: {self.name}")
            for column in rotated(COLUMNS, number):
                if number < self.rounds(column, asked):
                    found[column].append(await self._round(column, idle))
        await self._alike()
        return case_of(self.name, self.callers, found, self._note())

    async def _round(self, column: str, idle: IdleHeartbeat) -> Round:
        where = self._where(column)
        async with opened(self.area, column, self.root / self.area.name, self.stored, where) as store:
            await store.update(0)  # the first one after a start may have to lay something up
            watched, timed = self._load(column, store), self._load(column, store)
            taken = await observed(idle, where, watched.run())
            begun = time.thread_time()
            await timed.run()
            loop_ms = 1e3 * (time.thread_time() - begun) / timed.calls
            store.prove()  # before the side is closed: what was acknowledged is there already
        more = {"loop_ms_per_call": loop_ms}
        waited = timed.waited if self._whole(column) else []
        return replace(round_of(taken, watched.calls, waited), more=more)

    async def _alike(self) -> None:
        """Raise `Broken` unless both sides have the same bytes after the same changes."""
        found = []
        for column in STAGES:
            where = self._where(column)
            async with opened(self.area, column, self.root / self.area.name, self.stored, where) as store:
                await store.create(self.stored)
                await store.update(1)
                found.append(store.prove())
        if found[0] != found[1]:
            raise Broken(
                f"{self.area.name}, {self.name}", "both sides hold the same identities in other bytes"
            )

    def _load(self, column: str, store: Store) -> Load:
        return Load(store, self.callers if self._whole(column) else SAMPLE)

    def _whole(self, column: str) -> bool:
        return self.callers == ONE_BY_ONE or column == "async"

    def _note(self) -> str:
        if self.blocked_rounds < MOST_ROUNDS:
            return f"reference and sync: {self.blocked_rounds} round, since each save is slow"
        if self.callers == ONE_BY_ONE:
            return ""
        return (
            f"reference and sync are sampled: {SAMPLE} of the {self.callers:,}, each a save of its own;"
            " so their latency is not measured"
        )

    def _where(self, column: str) -> str:
        return f"{self.area.name}, {self.name}, {column}"


class Load:
    """Callers that begin together, again and again until the time is over; each wait in ms."""

    def __init__(self, store: Store, callers: int) -> None:
        self._store = store
        self._callers = callers
        self.waited: list[float] = []

    @property
    def calls(self) -> int:
        """How many were acknowledged."""
        return len(self.waited)

    async def run(self) -> None:
        """Until `ROUND_S` is over, at the earliest after `LEAST` calls."""
        until = time.perf_counter() + ROUND_S
        while self.calls < LEAST or time.perf_counter() < until:
            await self._burst(self.calls)

    async def _burst(self, first: int) -> None:
        """As many connections' requests come in: some at each turn of the loop."""
        begun = time.perf_counter()
        tasks = []
        for number in range(first, first + self._callers):
            tasks.append(asyncio.create_task(self._update(number, begun)))
            if len(tasks) % SLICE == 0:
                await asyncio.sleep(0)
        await together(tasks)

    async def _update(self, number: int, begun: float) -> None:
        await self._store.update(number)
        self.waited.append(1e3 * (time.perf_counter() - begun))
