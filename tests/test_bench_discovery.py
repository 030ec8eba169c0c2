"""Discovery is measured on every column, and no answer is believed unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import client
from ksi_daemon.discovery import AREA
from ksi_daemon.discovery.aio import AsyncCodeSearch
from ksi_daemon.discovery.core import Found
from ksi_migrate import bench_discovery, bench_discovery_socket, bench_source
from ksi_migrate.bench_columns import COLUMNS
from ksi_migrate.bench_discovery import Discovery, What
from ksi_migrate.bench_discovery_socket import ThroughSocket
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_room import Unanswered
from ksi_migrate.bench_source import Source
from ksi_migrate.idle import IdleHeartbeat, idle_heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five events, twenty-one files, four searches, rounds of 20 ms."""
    monkeypatch.setattr(bench_source, "EVENTS", 5)
    monkeypatch.setattr(bench_discovery, "FILES", 21)
    monkeypatch.setattr(bench_discovery, "SEARCHES", 4)
    monkeypatch.setattr(bench_discovery, "ROUND_S", 0.02)
    monkeypatch.setattr(bench_discovery_socket, "SEARCHES", 4)


@pytest.fixture
async def idle() -> AsyncIterator[IdleHeartbeat]:
    """The heartbeat of an idle process."""
    async with idle_heartbeat() as found:
        yield found


def case(place: Path, what: What, area: Any = AREA) -> Discovery:
    """One case over a small tree."""
    return Discovery(area, place, Source(place / "source", 21), what)


def untold(_text: str) -> None:
    """A progress that nobody reads."""


async def test_mining_is_measured_with_the_originals_calls_beside_it(tmp_path: Path, idle: IdleHeartbeat):
    """Each column mines the same tree; reference and sync once."""
    told: list[str] = []
    part = case(tmp_path, What.COLD)

    found = await part.measure(2, idle, told.append)

    assert told == ["discovery: details, examples mined, 21 files"] * 2
    assert (found.callers, found.rounds, found.candidate.calls) == (1, 1, 2)
    walls = found.more["wall_s"]
    assert all((walls[column] or 0) > 0 for column in COLUMNS)
    assert (walls["ratio"] or 0) > 1
    assert found.note == "reference and sync: 1 round, since each takes seconds"
    assert case(tmp_path, What.COLD).rounds("async", 1) == 1
    assert (await part.measure(1, idle, untold)).note == ""


async def test_what_is_known_is_compared_with_the_same_request_without_mining(tmp_path, idle):
    """The original has no such column: it analysed its own source each time."""
    found = await case(tmp_path, What.WARM).measure(1, idle, untold)

    assert found.reference is None
    assert found.candidate.calls > 1
    assert all((found.more[name]["async"] or 0) > 0 for name in ("p50_ms", "without_mining_p50_ms"))


@pytest.mark.parametrize("what", [What.DIFFERENT, What.EQUAL])
async def test_searches_at_once_are_compared_with_one_by_one(tmp_path, idle, what):
    """Different ones; equal ones are one."""
    found = await case(tmp_path, what).measure(1, idle, untold)

    assert (found.candidate.calls, found.callers) == (4, 20)
    assert (found.more["wall_s"]["async"] or 0) > 0
    assert ("times_one_by_one" in found.more) == (what is What.DIFFERENT)


async def test_a_daemon_is_pinged_meanwhile(tmp_path: Path, idle: IdleHeartbeat):
    """Through the socket, more often at async than at sync; nothing is left of its root."""
    told: list[str] = []
    part = ThroughSocket(AREA, tmp_path / "root", Source(tmp_path / "source", 21))

    found = await part.measure(2, idle, told.append)

    assert told == ["discovery: through the socket, a ping beside it, 21 files"] * part.steps(2)
    assert (found.sync.rounds, found.candidate.rounds, part.steps(9)) == (1, 2, 3)
    assert found.reference is None
    for figure in ("pings", "ping_p99_ms"):
        assert all((found.more[figure][column] or 0) > 0 for column in ("sync", "async"))
    assert found.sync.loop_stall_max_ms > 0
    assert not (tmp_path / "root").exists()


class Lazy(AsyncCodeSearch):
    """A side that mines nothing and finds nothing."""

    async def mine(self, events):
        """None."""
        return dict.fromkeys(events, ())

    async def search(self, _query, _told):
        """Nothing."""
        return Found()


@pytest.mark.parametrize(
    ("what", "wrong"),
    [(What.COLD, "bench:event_00 has the examples"), (What.DIFFERENT, "was found 0 times, not 21")],
)
async def test_a_side_that_finds_nothing_is_a_finding(tmp_path, idle, what, wrong):
    """However quick it is."""
    with pytest.raises(Broken, match=wrong):
        await case(tmp_path, what, replace(AREA, aio=Lazy)).measure(1, idle, untold)


@pytest.mark.parametrize("what", [What.COLD, What.DIFFERENT])
async def test_a_reference_that_finds_something_else_is_a_finding(tmp_path, idle, monkeypatch, what):
    """The tree is not what it is taken for."""
    monkeypatch.setattr(bench_source, "mined", lambda _tree, _event: [{}] * 3)
    monkeypatch.setattr(bench_source, "searched", lambda _tree, _pattern: 0)

    with pytest.raises(Broken):
        await case(tmp_path, what).measure(1, idle, untold)


def test_an_error_ends_the_run(tmp_path, monkeypatch):
    """With its own words."""
    part = ThroughSocket(AREA, tmp_path / "root", Source(tmp_path / "source", 21))
    answer = {"data": {"error": "no", "code": "search_failed"}}
    monkeypatch.setattr(client, "ask", lambda *_args: answer)

    class Daemon:
        socket = tmp_path

    daemon: Any = Daemon()
    with pytest.raises(Unanswered, match="search_failed"):
        part._ask(daemon, "discovery:search", {})
    monkeypatch.setattr(ThroughSocket, "_ask", _first_only())
    with pytest.raises(OSError, match="broken"):
        part._load(daemon)


def _first_only():
    def ask(_self, _daemon, event, _data):
        if event == "discovery:search":
            raise OSError("broken")

    return ask


def test_the_tree_is_made_once_and_has_what_is_mined(tmp_path: Path):
    """Three events in every tenth file; the reference finds what both sides must."""
    source = Source(tmp_path / "source", 21)
    source.make()
    before = sorted(path.stat().st_mtime_ns for path in source.root.rglob("*.py"))
    source.make()

    assert len(before) == 21
    assert sorted(path.stat().st_mtime_ns for path in source.root.rglob("*.py")) == before
    mined = bench_source.mined(source.root, "bench:event_03")
    assert sorted(one["data"]["number"] for one in mined) == [10, 20]
    assert bench_source.searched(source.root, "Do step 3 of module") == 21
    source.prove("here", 3, [{"data": {"number": 10}}, {"data": {"number": 20}}])
