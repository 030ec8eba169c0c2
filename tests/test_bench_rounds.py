"""A round drives every column over the same lines, watches the loop, and believes no log unseen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ksi_daemon.errors import KsiError
from ksi_daemon.exercise import Load
from ksi_daemon.messaging import AREA
from ksi_daemon.messaging.sync import SyncBusLog
from ksi_migrate import bench_cases, bench_rounds, bench_stall, bench_switch
from ksi_migrate.bench_columns import COLUMNS, Setup, opened
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_rounds import Disturbed, fitting_count, observed, one_round
from ksi_migrate.bench_switch import switch_cost
from ksi_migrate.exits import Inconclusive
from ksi_migrate.idle import IdleHeartbeat, idle_heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOAD = AREA.exercise.loads[0]


class Forgetful(SyncBusLog):
    """A side that acknowledges every line and drops the 13th."""

    count = 0

    def append(self, line: bytes) -> None:
        """Write it, or not."""
        self.count += 1
        if self.count != 13:
            super().append(line)


class Silent(SyncBusLog):
    """A side that acknowledges every line and writes none."""

    def open(self) -> None:
        """Not even the log."""

    def append(self, line: bytes) -> None:
        """Nothing."""


@pytest.fixture
async def idle() -> AsyncIterator[IdleHeartbeat]:
    """The heartbeat of an idle process."""
    async with idle_heartbeat() as found:
        yield found


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """Ten callers on the message bus."""
    return Setup("10 callers", AREA, LOAD, tmp_path, 10)


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_round_counts_every_call(setup: Setup, idle: IdleHeartbeat, column: str):
    """All three columns write all lines, and every figure of the round is there."""
    found = await one_round(setup, column, LOAD.lines(200), idle)

    assert found.calls == 200
    assert found.throughput == 200 / found.seconds
    assert 0 < (found.latency_p50_ms or 0) <= (found.latency_p99_ms or 0)
    assert found.cpu_s > 0
    assert found.rss_peak_mib > 1


async def test_latency_counts_the_others_calls_too(setup: Setup, idle: IdleHeartbeat):
    """On the sync side a caller waits for the nine others: 10 callers wait about ten times as long as one."""
    lines = LOAD.lines(800)

    alone = await one_round(replace(setup, callers=1), "sync", lines, idle)
    together = await one_round(setup, "sync", lines, idle)

    assert (together.latency_p50_ms or 0) > 3 * (alone.latency_p50_ms or 0)


async def test_a_side_that_loses_a_line_is_found_out(setup: Setup, idle: IdleHeartbeat):
    """A line that was acknowledged and is not in the log ends the run as a finding."""
    broken = replace(setup, area=replace(AREA, sync=Forgetful))

    with pytest.raises(Broken, match="messaging, 10 callers, sync"):
        await one_round(broken, "sync", LOAD.lines(100), idle)


async def test_a_side_without_a_log_is_found_out(setup: Setup, idle: IdleHeartbeat):
    """A side that only says it wrote has lost every line."""
    broken = replace(setup, area=replace(AREA, sync=Silent))

    with pytest.raises(Broken, match="100 of 100 acknowledged lines"):
        await one_round(broken, "sync", LOAD.lines(100), idle)


async def test_a_call_that_fails_makes_the_run_inconclusive(idle: IdleHeartbeat):
    """A full disk is no verdict on either side; the message is kept."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KsiError("no space left")

    with pytest.raises(Disturbed, match="here: no space left"):
        await observed(idle, "here", fail())


async def test_the_loop_is_watched_while_the_work_runs(idle: IdleHeartbeat):
    """A call that blocks for 30 ms is a stall of about as long."""
    import time  # noqa: PLC0415 - the sleep that blocks is the fact under test

    async def block() -> None:
        await asyncio.sleep(0.005)
        time.sleep(0.03)

    taken = await observed(idle, "here", block())

    assert taken.stall.max_ms > 25
    assert taken.seconds > 0.03


async def test_the_count_fits_the_time_and_the_callers(setup: Setup, monkeypatch: pytest.MonkeyPatch):
    """More time gives more calls, always a multiple of the callers, never more than the limit."""
    short = await fitting_count(setup, "async", 0.002)
    long = await fitting_count(setup, "async", 0.2)
    monkeypatch.setattr(bench_rounds, "MOST", 500)

    assert short < long
    assert short % 10 == long % 10 == 0
    assert await fitting_count(setup, "async", 10) == 500


async def test_a_case_has_rounds_of_all_columns(setup: Setup, idle: IdleHeartbeat, monkeypatch):
    """Each round is told before it begins; with fsync there is no reference."""
    monkeypatch.setattr(bench_cases, "ROUND_S", 0.01)
    told: list[str] = []

    case = await bench_cases.measure(replace(setup, durability="fsync"), 2, idle, told.append)

    assert told == ["messaging: 10 callers"] * 2
    assert (case.rounds, case.reference) == (2, None)
    assert (case.ratio.throughput or 0) > 0


def test_the_cases_follow_from_the_area(tmp_path: Path):
    """Three cases for an append component; one load more doubles them; a read component has no fsync."""
    two = replace(AREA.exercise, loads=(LOAD, Load("other", 1, "append", LOAD.lines, LOAD.reference)))

    names = [setup.name for setup in bench_cases.setups(AREA, tmp_path)]
    more = [setup.name for setup in bench_cases.setups(replace(AREA, kind="read", exercise=two), tmp_path)]
    stalls = [setup.name for setup in bench_stall.setups((replace(AREA, exercise=two),), tmp_path)]

    assert names == ["100 callers", "1 caller", "100 callers, fsync"]
    assert more == ["append, 100 callers", "append, 1 caller", "other, 100 callers", "other, 1 caller"]
    assert stalls == ["append, stalling disk", "other, stalling disk"]


async def test_each_opening_begins_with_an_empty_log(setup: Setup):
    """What the last round wrote is not in the next one's log."""
    for _ in range(2):
        async with opened(setup, "async") as call:
            await call(b"{}\n")

    assert setup.log.read_bytes() == b"{}\n"


async def test_the_switch_has_a_price(setup: Setup, monkeypatch: pytest.MonkeyPatch):
    """It is measured over the pairs asked for, is less than the call itself, and leaves no log."""
    monkeypatch.setattr(bench_switch, "PAIRS", 6)

    cost = await switch_cost(setup)

    assert cost.pairs == 6
    assert -50 < cost.percent < 100
    assert not setup.log.exists()


async def test_a_stall_round_without_a_call_is_inconclusive(setup: Setup, idle: IdleHeartbeat, monkeypatch):
    """A machine so slow that nothing ended has no figures."""
    monkeypatch.setattr(bench_stall, "LASTS_S", 0.02)
    monkeypatch.setattr(bench_stall, "THINKS_S", 0.03)

    with pytest.raises(Inconclusive, match="no call ended in time"):
        await bench_stall.measure(setup, 1, idle, lambda _text: None)


async def test_the_stall_case_paces_its_callers(setup: Setup, idle: IdleHeartbeat, monkeypatch):
    """Callers think between two lines and end with the time or their lines; all columns are proved."""
    monkeypatch.setattr(bench_stall, "LASTS_S", 0.3)
    monkeypatch.setattr(bench_stall, "MOST_EACH", 5)
    (stalling,) = bench_stall.setups((AREA,), setup.root)

    case = await bench_stall.measure(stalling, 1, idle, lambda _text: None)

    assert case.name == "stalling disk"
    assert 0 < case.candidate.calls <= bench_stall.CALLERS * 5
    assert case.reference is not None
    assert (case.sync.latency_p50_ms or 0) > 0
