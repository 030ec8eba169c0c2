"""What configuration files cost: many sets at once, and a get of a file that nobody has changed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ksi_daemon.connection import SLICE
from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import COLUMNS, STAGES
from ksi_migrate.bench_configs import Configs, opened
from ksi_migrate.bench_documents import SHAPES, Files
from ksi_migrate.bench_figures import Case, Round, case_of
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_room import together
from ksi_migrate.bench_rounds import observed, round_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_daemon.site import Durability
    from ksi_migrate.idle import IdleHeartbeat

FILES: Final = 20
SIZE: Final = 50_000
"""Bytes of a file, about."""

SETS: Final = 100
SAMPLE: Final = 10
"""Of so many at once that many are made on the columns where one waits for the other."""

MOST_ROUNDS: Final = 3
ROUND_S: Final = 0.3
LEAST: Final = 2
"""Gets of a round, however slow they are."""

STALL_BAR: Final = "loop stall of at most 5 ms"


@dataclass(frozen=True, slots=True)
class Sets:
    """One case: many sets at once, each of another key, over several files."""

    area: Area
    root: Path
    durability: Durability = "os"

    @property
    def name(self) -> str:
        """As the document names it."""
        words = f"{SETS} sets at once, {FILES} files of {SIZE / 1000:g} kB"
        return words + (", fsync" if self.durability == "fsync" else "")

    def steps(self, asked: int) -> int:
        """One for each round."""
        return min(asked, MOST_ROUNDS)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds. Raises `Unanswered`, `Broken`, `IdleLost`."""
        files = Files(self.root, FILES, SIZE)
        columns = COLUMNS if self.durability == "os" else tuple(STAGES)
        found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
        for number in range(self.steps(asked)):
            tell(f"{self.area.name}: {self.name}")
            for column in rotated(columns, number):
                found[column].append(await self._round(column, files, idle))
        await self._alike(files, columns)
        bar = f"at least the throughput of sync, 3 times aimed for; {STALL_BAR}"
        return replace(case_of(self.name, SETS, found, self._note()), bar=bar)

    async def _round(self, column: str, files: Files, idle: IdleHeartbeat) -> Round:
        count = SETS if column == "async" else min(SAMPLE, SETS)
        where = f"{self.area.name}, {self.name}, {column}"
        async with opened(self.area, column, files, where, self.durability) as one:
            burst = Burst(one, count)
            taken = await observed(idle, where, burst.run())
            files.prove(where, range(count))  # before the side is closed: what was acknowledged is there
            _prove_backups(one, count)
        more = {"call_ms": 1e3 * taken.seconds / count}
        return replace(round_of(taken, count, burst.waited if count == SETS else []), more=more)

    async def _alike(self, files: Files, columns: tuple[str, ...]) -> None:
        """Raise `Broken` unless every column leaves the same bytes after the same sets, one by one."""
        found = []
        numbers = range(min(SHAPES, files.count))
        for column in columns:
            where = f"{self.area.name}, {self.name}, {column}"
            async with opened(self.area, column, files, where, self.durability) as one:
                for number in numbers:
                    await one.set(number)
                found.append(files.prove(where, numbers))
        if any(content != found[0] for content in found):
            raise Broken(f"{self.area.name}, {self.name}", "the columns hold the same values in other bytes")

    def _note(self) -> str:
        if SAMPLE >= SETS:
            return ""
        columns = "reference and sync are" if self.durability == "os" else "sync is"
        return (
            f"{columns} sampled: {SAMPLE} of the {SETS}, one after the other; all of them would stall the"
            f" loop {SETS / SAMPLE:g} times as long, and their latency is not measured"
        )


class Burst:
    """So many connections' requests, some at each turn of the loop; each wait in ms."""

    def __init__(self, one: Configs, count: int) -> None:
        self._one = one
        self._count = count
        self.waited: list[float] = []

    async def run(self) -> None:
        """All of them, once."""
        begun = time.perf_counter()
        tasks = []
        for number in range(self._count):
            tasks.append(asyncio.create_task(self._set(number, begun)))
            if len(tasks) % SLICE == 0:
                await asyncio.sleep(0)
        await together(tasks)

    async def _set(self, number: int, begun: float) -> None:
        await self._one.set(number)
        self.waited.append(1e3 * (time.perf_counter() - begun))


@dataclass(frozen=True, slots=True)
class Gets:
    """One case: gets of one file that is not changed meanwhile, one after the other."""

    area: Area
    root: Path

    @property
    def name(self) -> str:
        """As the document names it."""
        return f"get from an unchanged file of {SIZE / 1000:g} kB"

    def steps(self, asked: int) -> int:
        """One for each round."""
        return min(asked, MOST_ROUNDS)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds. Raises `Unanswered`, `Broken`, `IdleLost`."""
        found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
        async with AsyncExitStack() as stack:
            columns = {column: await stack.enter_async_context(self._opened(column)) for column in COLUMNS}
            for number in range(self.steps(asked)):
                tell(f"{self.area.name}: {self.name}")
                for column in rotated(COLUMNS, number):
                    found[column].append(await self._round(column, columns[column], idle))
            for column in COLUMNS:
                await prove_changes(columns[column])
        bar = f"at least 20 times faster than sync; {STALL_BAR}"
        return replace(case_of(self.name, 1, found), bar=bar)

    async def _round(self, column: str, one: Configs, idle: IdleHeartbeat) -> Round:
        waited: list[float] = []
        work = _get_again(one, waited)
        taken = await observed(idle, one.where, work, workers=column == "async")
        return replace(round_of(taken, len(waited), waited), more={"call_ms": sum(waited) / len(waited)})

    def _opened(self, column: str) -> AbstractAsyncContextManager[Configs]:
        files = Files(self.root / column, 1, SIZE)
        return opened(self.area, column, files, f"{self.area.name}, {self.name}, {column}")


async def _get_again(one: Configs, waited: list[float]) -> None:
    until = time.perf_counter() + ROUND_S
    while len(waited) < LEAST or time.perf_counter() < until:
        begun = time.perf_counter()
        found = await one.get(0)
        waited.append(1e3 * (time.perf_counter() - begun))
        _expect(one, found, "bench 0", "what is in the file")
        await asyncio.sleep(0)


async def prove_changes(one: Configs) -> None:
    """Raise `Broken` unless a change from outside is noticed: by a new file, and in the same one.

    The second leaves the size as it was and comes as soon after a get as it can.
    """
    path = one.files.path(0)
    before = path.read_bytes()
    spare = path.with_suffix(".new")
    spare.write_bytes(before.replace(b"bench 0", b"other 0", 1))
    os.rename(spare, path)
    _expect(one, await one.get(0), "other 0", "a file put in its place")
    path.write_bytes(before.replace(b"bench 0", b"third 0", 1))
    _expect(one, await one.get(0), "third 0", "a change of the same size")
    path.write_bytes(before)
    _expect(one, await one.get(0), "bench 0", "what was there before")


def _expect(one: Configs, reply: bytes, wanted: str, what: str) -> None:
    if (found := json.loads(reply)["value"]) != wanted:
        raise Broken(one.where, f"a get shows {found!r}, not {what}: {wanted!r}")


def _prove_backups(one: Configs, count: int) -> None:
    """Raise `Broken` unless each set has named a backup of its own; the original's names collide."""
    if one.backups is None:
        return
    different = len({str(name) for name in one.backups if name})
    if different != count:
        raise Broken(one.where, f"{count} sets were acknowledged with {different} different backups")


def parts(area: Area, place: Path) -> Iterator[Sets | Gets]:
    """All cases of the room, below `place`."""
    yield Sets(area, place / area.name)
    yield Sets(area, place / area.name, "fsync")
    yield Gets(area, place / area.name)
