"""Searches at async: told while they run, a few at a time, and nothing of them left at any ending."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from contextlib import asynccontextmanager

import pytest

from ksi_daemon import family, settings
from ksi_daemon.discovery import aio, places, tree
from ksi_daemon.discovery.failures import TreeMissing
from ksi_daemon.errors import ComponentBusy, ComponentClosed, WorkerFailed
from ksi_daemon.proctable import become_subreaper
from ksi_daemon.site import Site
from tests.discovery_trees import HANGS, ONE, appears, lay, searched
from tests.families import KINDS, descriptors, left, stop_adopting, zombies
from tests.rooms import SIDES, Peer

SLOW = """#!/bin/sh
n=$$
echo + >> "${0%/*}/began"
sleep 0.15
echo - >> "${0%/*}/began"
printf '%s\\n' '{"type":"summary","data":{}}'
"""
"""It notes when it begins and when it ends, and finds nothing."""


def find(made, pattern="needle", *, peer=None, **data):
    """One search, begun."""
    return asyncio.ensure_future(made.send("discovery:search", peer, pattern=pattern, **data))


@asynccontextmanager
async def hanging(root, program=HANGS, **given):
    """A room whose rg tells of one match and hangs; at the end nothing of it is left."""
    assert become_subreaper()
    try:
        async with searched(root, "async", {}, program=program, settled=False, **given) as made:
            await ready(made)
            with made.overlooked():
                (root / "empty").touch()
                before = descriptors()
            yield made
            with made.overlooked():
                assert left(root) == []
                assert zombies() == []
                assert descriptors() <= before
    finally:
        stop_adopting()


async def ready(made):
    """Wait until every worker is there: what they hold open is not what a search leaves."""
    workers = made.backend._workers
    for at in range(workers.count):
        await workers.run("look", made.backend._places.tree, "", 10.0, at=at)


async def until_told(peer, count=1):
    """Wait until a client has so many frames."""
    while len(peer.frames) < count:
        await asyncio.sleep(0.005)


def gone(root):
    """Whether the rg that hung is no more."""
    return not os.path.exists(f"/proc/{(root / 'bin/pid').read_text().strip()}")


async def test_matches_are_told_while_rg_runs(tmp_path):
    """Long before its end, which does not come."""
    async with hanging(tmp_path) as made:
        peer = Peer()
        search = find(made, peer=peer, stream=True, search_id="s")
        await until_told(peer)
        assert not search.done()
        search.cancel()
        await asyncio.wait([search])

        assert peer.frames[0]["data"]["path"] == "a.py"
        assert gone(tmp_path)


@pytest.mark.parametrize("stream", [True, False])
async def test_rg_ends_when_its_client_goes(tmp_path, stream):
    """Also what it has started; whoever asks the same afterwards begins anew."""
    async with hanging(tmp_path, HANGS.replace("exec sleep", f"{KINDS['own session']} exec sleep")) as made:
        peer = Peer()
        search = find(made, peer=peer, stream=stream)
        await appears(tmp_path / "bin/pid")
        peer.hang_up()

        assert (await search)["code"] == "cancelled"
        assert gone(tmp_path)
        with made.overlooked():
            lay(tmp_path, {}, SLOW)
        assert (await find(made))["count"] == 0


async def test_rg_goes_on_while_another_client_wants_it(tmp_path):
    """Who comes later gets what was told before; the last one to leave ends it."""
    async with hanging(tmp_path) as made:
        first, second = Peer(), Peer()
        one = find(made, peer=first, stream=True, search_id="1")
        await until_told(first)
        other = find(made, peer=second, stream=True, search_id="2")
        await until_told(second)
        first.hang_up()

        assert (await one)["code"] == "cancelled"
        await appears(tmp_path / "bin/pid")
        assert not gone(tmp_path)
        assert second.frames[0]["data"]["search_id"] == "2"
        second.hang_up()
        assert (await other)["code"] == "cancelled"
        assert gone(tmp_path)


async def test_a_client_that_is_gone_costs_only_its_own(tmp_path):
    """What it asks for again, and what others ask for, is served."""
    async with hanging(tmp_path, SLOW, discovery_parallel=4) as made:
        peer, other = Peer(), Peer()
        searches = [find(made, f"p{number}", peer=peer) for number in range(3)]
        rest = find(made, "other", peer=other)
        await asyncio.sleep(0.02)
        peer.hang_up()

        assert {(await search)["code"] for search in searches} == {"cancelled"}
        assert (await rest)["count"] == 0


async def test_only_so_many_run_at_a_time(tmp_path):
    """KSI_DISCOVERY_PARALLEL of different searches; the others wait for their turn."""
    async with hanging(tmp_path, SLOW, discovery_parallel=3) as made:
        begun = time.monotonic()
        replies = await asyncio.gather(*(find(made, f"p{number}") for number in range(9)))
        took = time.monotonic() - begun
        with made.overlooked():
            signs = (tmp_path / "bin/began").read_text().split()

    running = [signs[: at + 1].count("+") - signs[: at + 1].count("-") for at in range(len(signs))]
    assert {reply["count"] for reply in replies} == {0}
    assert max(running) == 3
    assert took < 9 * 0.15


async def test_those_who_wait_for_their_turn_can_leave(tmp_path):
    """They began nothing."""
    async with hanging(tmp_path, discovery_parallel=1) as made:
        first, second = find(made, "a"), find(made, "b")
        await appears(tmp_path / "bin/pid")
        second.cancel()
        await asyncio.wait([second], timeout=0.5)

        assert second.cancelled()
        assert not gone(tmp_path)
        first.cancel()
        await asyncio.wait([first])


async def test_a_limit_ends_rg(tmp_path):
    """The reply comes when there is enough, whatever rg still has to do."""
    more = HANGS.replace("exec sleep", f"printf '%s\\n' '{ONE}' '{ONE}'\nexec sleep")
    async with hanging(tmp_path, more) as made:
        reply = await find(made, max_count=2)

        assert (reply["count"], reply["stopped"]) == (2, "matches")
        assert gone(tmp_path)


async def test_a_close_ends_what_runs_and_what_waits(tmp_path):
    """Each gets `component_closed`, in less than a second; a later call, too."""
    async with hanging(tmp_path, discovery_parallel=1) as made:
        searches = [find(made, f"p{number}") for number in range(3)]
        await appears(tmp_path / "bin/pid")
        assert made.backend.pending() == "3 searches"
        begun = time.monotonic()
        await made.backend.close()

        assert time.monotonic() - begun < 1
        assert {(await search)["code"] for search in searches} == {"component_closed"}
        assert gone(tmp_path)
        with pytest.raises(ComponentClosed):
            await made.backend.mine(("a:b",))
        await made.backend.open()


async def test_a_lane_that_is_stuck_costs_an_error(tmp_path):
    """A dead disk under the program: the search is answered within the call timeout."""
    async with searched(tmp_path, "async", {}, settled=False, call_timeout=0.2) as made:
        await find(made)
        answers = asyncio.Event()
        loop = asyncio.get_running_loop()
        made.backend._lane.submit(
            lambda: asyncio.run_coroutine_threadsafe(answers.wait(), loop).result(), _ignore
        )
        reply = await find(made, "other")
        answers.set()

    assert (reply["code"], reply["errno"]) == ("io_error", "ETIMEDOUT")


def _ignore(_result, _error):
    """Nobody waits for it."""


async def test_what_an_earlier_daemon_left_is_ended_at_the_start(tmp_path, monkeypatch):
    """Found by its mark; only the first start of a process looks for it."""
    monkeypatch.setattr(family, "_swept", set())
    async with searched(tmp_path, "async", {}, settled=False) as made:
        mark = made.backend._places.mark()
    with open("/dev/null") as null:
        orphan = await asyncio.create_subprocess_exec(
            *("sleep", "60"), env={**os.environ, "KSI_TURN": mark}, stdout=null, start_new_session=True
        )
    family._swept.clear()
    async with searched(tmp_path, "async", {}, settled=False):
        assert await asyncio.wait_for(orphan.wait(), 5) == -9


async def test_a_file_that_kills_its_worker_costs_only_its_part(tmp_path, monkeypatch):
    """Whatever crashed the parser: the others' examples are there."""
    monkeypatch.setattr(aio, "PART", 1)
    files = {f"{name}.py": f'emit_event("a:b", {{"n": "{name}"}})\n' for name in "xy"}
    async with searched(tmp_path, "async", files) as made:
        real = made.backend._workers.run

        async def run(name, *args):
            if name == "examples" and args[1][0][0] == "./x.py":
                raise WorkerFailed("discovery", "the worker process died")
            return await real(name, *args)

        monkeypatch.setattr(made.backend._workers, "run", run)
        found = await made.backend.mine(("a:b",))

    assert [one.path for one in found["a:b"]] == ["./y.py"]


async def test_a_sweep_that_hangs_holds_up_no_start(tmp_path, monkeypatch):
    """It is waited for a moment only; one that cannot see the process table is no reason either."""
    over = threading.Event()
    monkeypatch.setattr(aio, "SWEEP", 0.05)
    monkeypatch.setattr(family, "_swept", set())
    monkeypatch.setattr(family, "sweep", lambda _prefix: over.wait(30) and 0)
    async with searched(tmp_path, "async", {}, settled=False) as made:
        over.set()
        assert (await find(made))["count"] == 0

    def unreadable(_prefix):
        raise PermissionError

    monkeypatch.setattr(family, "sweep", unreadable)
    family._swept.clear()
    made.backend._places.begin()


async def test_a_worker_that_hangs_is_an_error_of_its_own(tmp_path, monkeypatch):
    """A dead disk under the tree: a search says so, and help goes without examples."""
    async with searched(tmp_path, "async", {"a.py": 'emit_event("a:b", {})'}) as made:

        async def hang(name, *_args):
            raise ComponentBusy(name, 1.0)

        monkeypatch.setattr(made.backend._workers, "run", hang)
        assert (await find(made))["code"] == "component_busy"
        assert (await made.send("system:help", event="plain"))["examples"] != []


async def test_a_worker_that_hangs_while_it_parses_is_one_too(tmp_path, monkeypatch):
    """Nothing that it left out is taken for the whole."""
    async with searched(tmp_path, "async", {"a.py": 'emit_event("a:b", {})'}) as made:
        real = made.backend._workers.run

        async def hang(name, *args):
            if name == "examples":
                raise ComponentBusy(name, 1.0)
            return await real(name, *args)

        monkeypatch.setattr(made.backend._workers, "run", hang)
        with pytest.raises(ComponentBusy):
            await made.backend.mine(("a:b",))


@pytest.mark.parametrize("side", SIDES)
async def test_a_tree_that_cannot_be_read_is_an_error_with_its_number(tmp_path, side, monkeypatch):
    """Of the kernel's, not that there is none."""

    def denied(*_args):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(tree, "look", denied)
    async with searched(tmp_path, side, {}, settled=False) as made:
        if side == "async":
            monkeypatch.setattr(made.backend._workers, "run", _denied)
        reply = await find(made)
        made.backend.calls = 0  # it did not come as far as to block

    assert (reply["code"], reply["errno"]) == ("io_error", "EACCES")


async def _denied(*_args):
    raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize("side", SIDES)
async def test_a_match_whose_context_had_not_come_is_told_at_the_end(tmp_path, side):
    """Time was over before the lines after it were there."""
    async with searched(tmp_path, side, {}, program=HANGS, settled=False, discovery_timeout=0.3) as made:
        peer = Peer()
        reply = await find(made, peer=peer, stream=True, context=2)

    assert (reply["count"], reply["stopped"]) == (1, "time")
    assert [frame["data"]["text"] for frame in peer.frames] == ["needle"]


def test_a_place_that_is_taken_away_is_an_error_of_its_own(tmp_path):
    """The tree goes between a look and a run; the directory for output cannot be made."""
    (tmp_path / "var").write_bytes(b"")
    found = places.Places(Site("discovery", settings.load(tmp_path)))
    found.begin()
    found.tree = str(tmp_path / "gone")

    with pytest.raises(TreeMissing):
        found.program()
