"""Identities created one after the other: each create saves one identity more than the last, so it is slower.

To create all takes the blocking columns minutes. So a few creates are measured at some fill levels, and the
time for all is summed up over the levels (by trapezoids); the async side really creates all as well.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import COLUMNS, STAGES
from ksi_migrate.bench_figures import Case, Round, case_of, percentile
from ksi_migrate.bench_rounds import Taken, observed, round_of
from ksi_migrate.bench_store import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_daemon.site import Durability
    from ksi_migrate.bench_store import Store
    from ksi_migrate.idle import IdleHeartbeat

ALL: Final = 10_000
LEVELS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where a few are measured, as parts of `ALL`; evenly spaced."""

EACH: Final = 8
"""How many are measured at a level."""

MOST_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """The creates at one level: what was observed, and how long each took (ms)."""

    taken: Taken
    waited: list[float]


@dataclass(frozen=True, slots=True)
class Growth:
    """One case: `ALL` identities created by one caller, from an empty file on."""

    area: Area
    root: Path
    durability: Durability

    @property
    def name(self) -> str:
        """As the document names it."""
        return f"create {ALL:,}, 1 at a time" + (", fsync" if self.durability == "fsync" else "")

    def steps(self, asked: int) -> int:
        """How often `measure` tells that it goes on."""
        return min(asked, MOST_ROUNDS) + (self.durability == "os")

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds. Raises `Unanswered`, `Broken`, `IdleLost`."""
        columns = COLUMNS if self.durability == "os" else tuple(STAGES)
        found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
        for number in range(min(asked, MOST_ROUNDS)):
            tell(f"{self.area.name}: {self.name}, sampled")
            for column in rotated(columns, number):
                found[column].append(summed([await self._sample(column, at, idle) for at in LEVELS]))
        if self.durability == "os":
            tell(f"{self.area.name}: {self.name}, all of them at async")
            sampled_s = median(one.more["sampled_s"] for one in found["async"])
            found["async"] = [await self._all("async", sampled_s, idle)]
        return case_of(self.name, 1, found, self._note())

    async def _sample(self, column: str, level: float, idle: IdleHeartbeat) -> Sample:
        stored = round(level * (ALL - EACH - 1))
        async with self._opened(column, stored) as store:
            await store.create(stored)  # the first one after a start may have to lay something up
            work = _Creates(store, stored + 1, EACH)
            taken = await observed(idle, store.where, work.run())
            store.prove()
        return Sample(taken, work.waited)

    async def _all(self, column: str, sampled_s: float, idle: IdleHeartbeat) -> Round:
        async with self._opened(column, 0) as store:
            work = _Creates(store, 0, ALL)
            taken = await observed(idle, store.where, work.run())
            store.prove()
        more = {"wall_s": taken.seconds, "sampled_s": sampled_s}
        return replace(round_of(taken, ALL, work.waited), more=more)

    def _opened(self, column: str, stored: int) -> AbstractAsyncContextManager[Store]:
        where, root = f"{self.area.name}, {self.name}, {column}", self.root / self.area.name
        return opened(self.area, column, root, stored, where, self.durability)

    def _note(self) -> str:
        words = f"sampled: {EACH} creates at each of {len(LEVELS)} fill levels, summed up"
        return words if self.durability == "fsync" else f"reference and sync are {words}; async creates all"


class _Creates:
    """One caller's creates, one after the other; each wait in ms."""

    def __init__(self, store: Store, first: int, count: int) -> None:
        self._store = store
        self._numbers = range(first, first + count)
        self.waited: list[float] = []

    async def run(self) -> None:
        begun = time.perf_counter()
        for number in self._numbers:
            await self._store.create(number)
            now = time.perf_counter()
            self.waited.append(1e3 * (now - begun))
            await asyncio.sleep(0)  # the client has its reply before it asks again: others get their turn
            begun = now


def summed(samples: Sequence[Sample]) -> Round:
    """A round of all creates from its samples; stalls are the worst of any level."""
    calls = sum(len(one.waited) for one in samples)
    wall_s = _over_all([one.taken.seconds / len(one.waited) for one in samples])
    cpu_s = _over_all([one.taken.cpu_s / len(one.waited) for one in samples])
    waited = [ms for one in samples for ms in one.waited]
    return Round(
        calls=calls,
        seconds=wall_s / ALL * calls,
        latency_p50_ms=percentile(waited, 50),
        latency_p99_ms=percentile(waited, 99),
        stall_p99_ms=max(one.taken.stall.p99_ms for one in samples),
        stall_max_ms=max(one.taken.stall.max_ms for one in samples),
        idle_max_ms=max(one.taken.idle.max_ms for one in samples),
        beats=sum(one.taken.stall.beats for one in samples),
        cpu_s=cpu_s / ALL * calls,
        rss_peak_mib=max(one.taken.rss_peak_mib for one in samples),
        more={"wall_s": wall_s, "sampled_s": wall_s},
    )


def _over_all(each: Sequence[float]) -> float:
    """Seconds for `ALL` from the seconds for one at each level."""
    return ALL * fmean((before + after) / 2 for before, after in pairwise(each))
