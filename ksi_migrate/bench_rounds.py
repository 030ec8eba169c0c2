"""One round of one column: callers driven, the loop watched, the log checked."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.errors import KsiError
from ksi_daemon.heartbeat import Heartbeat, Stall
from ksi_migrate.bench_below import Below
from ksi_migrate.bench_columns import REFERENCE, items, opened
from ksi_migrate.bench_figures import Round, percentile
from ksi_migrate.bench_memory import forget_peak, peak_mib
from ksi_migrate.bench_proof import check, check_count
from ksi_migrate.exits import CommandError, Inconclusive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from ksi_migrate.bench_columns import Call, Setup
    from ksi_migrate.idle import IdleHeartbeat

MOST: Final = 30_000
"""Calls of a round, whatever the column can do: their lines are made beforehand and kept."""

PROBE: Final = 200
TIMED_SHARE: Final = 4
"""Every so many calls of a round are made again, timed one by one, after the round that counts."""


class Disturbed(Inconclusive):
    """A call failed that should not have: the disk is full, or the machine is too slow."""

    def __init__(self, where: str, error: KsiError) -> None:
        super().__init__(f"{where}: {error}", "mend what the message says, and measure again")


@dataclass(frozen=True, slots=True)
class Taken:
    """What was observed while something ran; processor time and memory are those of worker processes too."""

    seconds: float
    cpu_s: float
    stall: Stall
    idle: Stall
    rss_peak_mib: float


async def observed(
    idle: IdleHeartbeat, where: str, work: Awaitable[object], *, workers: bool = True
) -> Taken:
    """Run `work` with both heartbeats beating. Raises `Disturbed`, and what `work` itself found wrong.

    Without `workers` the processes below this one do not count: they are another column's, and idle.
    """
    heart, below = Heartbeat(), Below(idle.pid)
    gc.collect()
    forget_peak()
    below.begin()
    await idle.read()
    heart.start()
    cpu, begun = time.process_time(), time.perf_counter()
    try:
        await work
    except CommandError:
        raise
    except KsiError as error:
        raise Disturbed(where, error) from error
    finally:
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        heart.stop()
    peak = peak_mib()
    if workers:
        cpu_s, peak = cpu_s + below.cpu_s(), peak + below.peak_mib()
    return Taken(seconds, cpu_s, heart.read(), await idle.read(), peak)


async def one_round(setup: Setup, column: str, lines: Sequence[bytes], idle: IdleHeartbeat) -> Round:
    """Write `lines` with all callers, each awaiting its own, then a part of them again, each one timed."""
    async with opened(setup, column) as call:
        taken = await observed(idle, setup.where(column), _drive(setup, column, call, lines))
    prove(setup, column, [lines[caller :: setup.callers] for caller in range(setup.callers)])
    return round_of(taken, len(lines), await _latencies(setup, column, lines))


def round_of(taken: Taken, calls: int, latencies: list[float]) -> Round:
    """The figures of one round; latencies in ms."""
    return Round(
        calls=calls,
        seconds=taken.seconds,
        latency_p50_ms=percentile(latencies, 50),
        latency_p99_ms=percentile(latencies, 99),
        stall_p99_ms=taken.stall.p99_ms,
        stall_max_ms=taken.stall.max_ms,
        idle_max_ms=taken.idle.max_ms,
        beats=taken.stall.beats,
        cpu_s=taken.cpu_s,
        rss_peak_mib=taken.rss_peak_mib,
    )


async def fitting_count(setup: Setup, column: str, round_s: float) -> int:
    """How many calls make a round of about `round_s` seconds: a multiple of the callers, at most `MOST`."""
    count = _multiple(PROBE, setup.callers)
    seconds = await _seconds(setup, column, count)
    while seconds < round_s / 4 and count < MOST:
        count = _multiple(min(count * 4, MOST), setup.callers)
        seconds = await _seconds(setup, column, count)
    seconds = min(seconds, await _seconds(setup, column, count))  # a slow moment would make every round short
    return _multiple(min(int(count * round_s / seconds), MOST), setup.callers)


async def _seconds(setup: Setup, column: str, count: int) -> float:
    lines = setup.load.lines(count)
    async with opened(setup, column) as call:
        begun = time.perf_counter()
        await _drive(setup, column, call, lines)
        return time.perf_counter() - begun


def _multiple(count: int, callers: int) -> int:
    return max(1, count // callers) * callers


async def _drive(setup: Setup, column: str, call: Call, lines: Sequence[bytes]) -> None:
    given, callers = items(column, lines), setup.callers
    pace = setup.pace(column, len(lines) // callers)
    await asyncio.gather(*(_caller(call, given[caller::callers], pace) for caller in range(callers)))


async def _caller(call: Call, mine: Sequence[Any], pace: int) -> None:
    """One line after the other, the next when the last one is acknowledged."""
    for start in range(0, len(mine), pace):
        for item in mine[start : start + pace]:
            await call(item)
        await asyncio.sleep(0)


async def _latencies(setup: Setup, column: str, lines: Sequence[bytes]) -> list[float]:
    """Milliseconds between a caller's replies, which is how long it waits, others' blocking included."""
    callers = setup.callers
    given = items(column, lines[: _multiple(len(lines) // TIMED_SHARE, callers)])
    pace = setup.pace(column, len(given) // callers)
    async with opened(setup, column) as call:
        begun = time.perf_counter()
        each = (_timed_caller(call, given[caller::callers], pace, begun) for caller in range(callers))
        return [1e3 * took for found in await asyncio.gather(*each) for took in found]


async def _timed_caller(call: Call, mine: Sequence[Any], pace: int, begun: float) -> list[float]:
    found = []
    for start in range(0, len(mine), pace):
        for item in mine[start : start + pace]:
            await call(item)
            now = time.perf_counter()
            found.append(now - begun)
            begun = now
        await asyncio.sleep(0)
    return found


def prove(setup: Setup, column: str, written: Sequence[Sequence[bytes]]) -> None:
    """Raise `Broken` unless the log holds what was acknowledged; `written` has one list for each caller."""
    content = setup.log.read_bytes() if setup.log.exists() else b""
    if column == REFERENCE:
        check_count(setup.where(column), content, sum(map(len, written)))
    else:
        check(setup.where(column), content, written)
