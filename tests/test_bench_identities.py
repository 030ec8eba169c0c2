"""Identities are created and updated on a file that holds many, and no file is believed unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ksi_daemon.heartbeat import Stall
from ksi_migrate import bench_growth, bench_identities, bench_parts, bench_stored
from ksi_migrate.bench_columns import COLUMNS
from ksi_migrate.bench_growth import Growth, Sample, summed
from ksi_migrate.bench_identities import Updates
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_room import Unanswered, together
from ksi_migrate.bench_rounds import Taken
from ksi_migrate.bench_store import opened
from ksi_migrate.idle import IdleHeartbeat, idle_heartbeat
from tests.bench_toys import AGENTS, AsyncToy, SyncToy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Lazy(SyncToy):
    """A side that acknowledges the last save of a sample and drops it."""

    count = 0

    def save(self, identities, changed):
        """Write them, or not."""
        self.count += 1
        if self.count != 4:
            super().save(identities, changed)


class Compact(AsyncToy):
    """A side that writes the same in other bytes."""

    async def save(self, identities, changed):
        """Without the indent."""
        self._side.path.write_text(json.dumps(identities))


class Late(AsyncToy):
    """A side with a clock of its own."""

    async def save(self, identities, changed):
        """Another stamp."""
        stamped = {
            key: {**value, "updated_at": value["updated_at"].replace("at ", "later than ")}
            for key, value in identities.items()
        }
        await super().save(stamped, changed)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of 20 ms, and 40 identities."""
    monkeypatch.setattr(bench_identities, "ROUND_S", 0.02)
    monkeypatch.setattr(bench_growth, "ALL", 40)
    monkeypatch.setattr(bench_growth, "EACH", 3)


@pytest.fixture
async def idle() -> AsyncIterator[IdleHeartbeat]:
    """The heartbeat of an idle process."""
    async with idle_heartbeat() as found:
        yield found


def untold(_text: str) -> None:
    """A progress that nobody reads."""


@pytest.mark.parametrize("column", COLUMNS)
async def test_every_column_holds_what_was_acknowledged(tmp_path: Path, column: str):
    """The file is that of the contract byte for byte, after updates and creates."""
    async with opened(AGENTS, column, tmp_path, 5, "here") as store:
        await store.update(3)
        await store.create(5)
    found = store.prove()

    assert found == json.dumps(json.loads(found), indent=2).encode()
    kept = json.loads(found)
    assert list(kept) == [bench_stored.name_of(number) for number in range(6)]
    assert kept[bench_stored.target(3, 5)]["task"] == "task 3"
    assert kept["agent_000005"] == bench_stored.identity(5)


def test_an_identity_has_about_300_bytes():
    """So that 10,000 of them make the file that the figures are quoted for."""
    assert 250 < (len(bench_stored.content(1000)) / 1000) < 350


async def test_one_at_a_time_has_loop_time(tmp_path: Path, idle: IdleHeartbeat):
    """Latency and the loop's own time are there for each column, and the rounds are those asked for."""
    told: list[str] = []

    case = await Updates(AGENTS, tmp_path, 20, 1).measure(2, idle, told.append)

    assert told == ["agent: 1 update at a time, 20 stored"] * 2
    assert (case.callers, case.rounds, case.note) == (1, 2, "")
    assert all((case.more["loop_ms_per_call"][column] or 0) > 0 for column in COLUMNS)
    assert (case.sync.latency_p50_ms or 0) > 0


async def test_many_at_once_are_sampled_where_each_is_a_save(tmp_path: Path, idle: IdleHeartbeat):
    """Async makes all of them; the others a few, without a latency, and the note says so."""
    case = await Updates(AGENTS, tmp_path, 50, 40).measure(1, idle, untold)

    assert case.candidate.calls % 40 == 0 < case.candidate.calls
    assert case.sync.calls % bench_identities.SAMPLE == 0 < case.sync.calls
    assert case.sync.latency_p50_ms is None is not case.candidate.latency_p50_ms
    assert "5 of the 40" in case.note


async def test_fewer_rounds_of_the_blocking_columns(tmp_path: Path, idle: IdleHeartbeat):
    """With very much stored each save is slow; the case has as many rounds as its poorest column."""
    case = await Updates(AGENTS, tmp_path, 5, 1, blocked_rounds=1).measure(2, idle, untold)

    assert (case.rounds, case.sync.rounds, case.candidate.rounds) == (1, 1, 2)
    assert case.note == "reference and sync: 1 round, since each save is slow"


@pytest.mark.parametrize(("durability", "steps"), [("os", 3), ("fsync", 2)])
async def test_growth_is_sampled_and_async_creates_all(tmp_path, idle, durability, steps):
    """With `os` async really creates all, beside its own samples; with `fsync` there is no reference."""
    told: list[str] = []
    growth = Growth(AGENTS, tmp_path, durability)

    case = await growth.measure(2, idle, told.append)

    assert len(told) == growth.steps(2) == steps
    assert case.candidate.calls == (40 if durability == "os" else 2 * 5 * 3)
    assert (case.reference is None) == (durability == "fsync")
    assert case.more["wall_s"]["sync"] == case.more["sampled_s"]["sync"]
    assert (case.more["sampled_s"]["async"] or 0) > 0
    assert "sampled: 3 creates at each of 5 fill levels" in case.note.replace("are sampled", "sampled")


def test_samples_are_summed_up_by_trapezoids(monkeypatch: pytest.MonkeyPatch):
    """Where a create's time grows evenly from 0 to 40 ms all take 20 ms on average; stalls are the worst."""
    monkeypatch.setattr(bench_growth, "ALL", 1000)

    def sample(ms: float) -> Sample:
        stall = Stall(ms, ms, ms, 100)
        return Sample(Taken(2 * ms / 1e3, ms / 1e3, stall, Stall(0, 0, 0, 1), ms), [ms, ms])

    found = summed([sample(ms) for ms in (0, 10, 20, 30, 40)])

    assert found.more["wall_s"] == pytest.approx(20.0)
    assert found.throughput == pytest.approx(50.0)
    assert found.cpu_s / found.calls == pytest.approx(0.01)
    assert (found.calls, found.stall_max_ms, found.beats) == (10, 40, 500)


async def test_a_save_that_was_dropped_is_a_finding(tmp_path: Path, idle: IdleHeartbeat):
    """What was acknowledged and is not in the file ends the run, with the place and the first byte."""
    broken = replace(AGENTS, sync=Lazy)

    with pytest.raises(Broken, match="agent, create 40, 1 at a time, sync: the file has"):
        await Growth(broken, tmp_path, "os").measure(1, idle, untold)


async def test_other_bytes_are_a_finding(tmp_path: Path, idle: IdleHeartbeat):
    """The same identities in other bytes are not the contract's file."""
    with pytest.raises(Broken, match=r"async: the file has .* at byte"):
        await Updates(replace(AGENTS, aio=Compact), tmp_path, 3, 1).measure(1, idle, untold)


async def test_sides_that_differ_are_a_finding(tmp_path: Path, idle: IdleHeartbeat):
    """Each file may be right by itself: after the same changes they must be the same."""
    with pytest.raises(Broken, match="in other bytes"):
        await Updates(replace(AGENTS, aio=Late), tmp_path, 3, 1).measure(1, idle, untold)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}"])
def test_a_file_without_a_change_is_a_finding(tmp_path: Path, content: bytes | None):
    """Missing, empty, torn, of another kind, or without the identity."""
    path = tmp_path / "identities.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(Broken, match="lacks what was acknowledged"):
        bench_stored.prove("here", path, bench_stored.identities(1), {"agent_000000"})


async def test_a_request_that_fails_makes_the_run_inconclusive(tmp_path: Path):
    """The room's own words are kept."""
    words = "here: agent:update_identity: Identity for agent_000002 not found"
    async with opened(AGENTS, "sync", tmp_path, 2, "here") as store:
        store.calls = replace(store.calls, count=3)  # type: ignore[type-var]  # a dataclass, whichever it is

        with pytest.raises(Unanswered, match=words):
            await together(map(store.update, range(3)))


def test_each_room_has_its_own_cases(tmp_path: Path):
    """Five cases of identities; a room that writes a log has those of a log."""
    names = [part.name for part in bench_parts.parts([AGENTS], tmp_path)]

    assert names == [
        "1 update at a time, 10,000 stored",
        "1,000 updates at once, 10,000 stored",
        "create 40, 1 at a time",
        "create 40, 1 at a time, fsync",
        "1 update at a time, 100,000 stored",
    ]
