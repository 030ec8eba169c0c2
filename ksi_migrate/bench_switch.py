"""What the switch itself costs while everything is at sync: the one price that is paid before any gain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.flags import Stage
from ksi_daemon.site import Site
from ksi_daemon.switch import Switch
from ksi_migrate.bench_place import settings_of

if TYPE_CHECKING:
    from ksi_migrate.bench_columns import Call, Setup

PAIRS: Final = 100
CALLS: Final = 100
"""Calls of each half of a pair: a few milliseconds, so that a slow moment meets both halves."""


@dataclass(frozen=True, slots=True)
class SwitchCost:
    """The median over the pairs of the CPU time that a call through the switch takes more than a bare one.

    The percentage is of the bare call, so it is the most that it can be of a whole publish.
    """

    percent: float
    per_call_us: float
    pairs: int


async def switch_cost(setup: Setup) -> SwitchCost:
    """Compare the sync side called through a coroutine with the same through a `Switch` at sync."""
    site = Site(setup.area.name, settings_of(setup.root))
    side = setup.area.control(site)
    switch = Switch(setup.area, site)
    await switch.open(Stage.SYNC)
    name = setup.load.call
    bare, switched = _coroutine(side, name), _through(switch, name)
    lines = setup.load.lines(CALLS)
    pairs = [await _pair(bare, switched, lines, number) for number in range(PAIRS)]
    await switch.close()
    setup.log.unlink()
    return SwitchCost(
        percent=median((there - here) / here * 100 for here, there in pairs),
        per_call_us=median((there - here) / CALLS * 1e6 for here, there in pairs),
        pairs=PAIRS,
    )


async def _pair(bare: Call, switched: Call, lines: list[bytes], number: int) -> tuple[float, float]:
    """CPU seconds without and with the switch; which comes first alternates."""
    if number % 2:
        there = await _seconds(switched, lines)
        return await _seconds(bare, lines), there
    return await _seconds(bare, lines), await _seconds(switched, lines)


async def _seconds(call: Call, lines: list[bytes]) -> float:
    begun = time.thread_time()
    for line in lines:
        await call(line)
    return time.thread_time() - begun


def _coroutine(side: Any, name: str) -> Call:
    method = getattr(side, name)

    async def call(line: bytes) -> Any:
        return method(line)

    return call


def _through(switch: Switch, name: str) -> Call:
    return getattr(switch, name)  # type: ignore[no-any-return]  # the contract's methods are laid on it
