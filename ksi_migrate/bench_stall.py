"""The case of a disk that really stalls, 50 ms twice a second: what the daemon's clients notice of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import COLUMNS, Setup, items, opened
from ksi_migrate.bench_figures import Case, Round, case_of
from ksi_migrate.bench_rounds import observed, prove, round_of
from ksi_migrate.exits import Inconclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_migrate.bench_columns import Call
    from ksi_migrate.idle import IdleHeartbeat

NAME: Final = "stalling disk"
CALLERS: Final = 100
THINKS_S: Final = 0.01
"""Seconds between a caller's last acknowledged line and its next: clients at work, not at full load."""

LASTS_S: Final = 1.1
"""Seconds of a round: two stalls, one at the least."""

MOST_EACH: Final = round(LASTS_S / THINKS_S)


def setups(areas: Sequence[Area], disk: Path) -> Iterator[Setup]:
    """One case for each load."""
    for area in areas:
        for load in area.exercise.loads:
            name = NAME if len(area.exercise.loads) == 1 else f"{load.name}, {NAME}"
            yield Setup(name, area, load, disk / area.name, CALLERS)


async def measure(setup: Setup, rounds: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
    """All rounds of the case, on a disk that stalls meanwhile. Raises `Broken`, `Disturbed`, `IdleLost`."""
    lines = setup.load.lines(CALLERS * MOST_EACH)
    found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
    for number in range(rounds):
        tell(f"{setup.area.name}: {setup.name}")
        for column in rotated(COLUMNS, number):
            found[column].append(await _round(setup, column, lines, idle))
    return case_of(setup.name, setup.callers, found)


async def _round(setup: Setup, column: str, lines: list[bytes], idle: IdleHeartbeat) -> Round:
    given = items(column, lines)
    found: list[list[float]] = [[] for _ in range(CALLERS)]
    async with opened(setup, column) as call:
        taken = await observed(idle, setup.where(column), _drive(call, given, found))
    latencies = [1e3 * waited for each in found for waited in each]
    if not latencies:
        raise Inconclusive(f"{setup.where(column)}: no call ended in time", "measure on a quieter machine")
    prove(setup, column, [lines[at::CALLERS][: len(waited)] for at, waited in enumerate(found)])
    return round_of(taken, len(latencies), latencies)


async def _drive(call: Call, given: Sequence[Any], found: list[list[float]]) -> None:
    until = asyncio.get_running_loop().time() + LASTS_S
    await asyncio.gather(*(_caller(call, given[at::CALLERS], until, found[at]) for at in range(CALLERS)))


async def _caller(call: Call, mine: Sequence[Any], until: float, waited: list[float]) -> None:
    """Call until the time is over; note the seconds from when a call was due, also if the loop was late."""
    loop = asyncio.get_running_loop()
    for item in mine:
        due = loop.time() + THINKS_S
        await asyncio.sleep(THINKS_S)
        if due > until:
            return
        await call(item)
        waited.append(loop.time() - due)
