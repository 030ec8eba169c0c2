"""The switch: calls keep their order through every flip, refused flips cost nothing, rollbacks go through."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import deque
from typing import Any, Protocol

import pytest

from ksi_daemon import relay as relaying
from ksi_daemon import settings
from ksi_daemon.area import Area
from ksi_daemon.completion import AREA as COMPLETION
from ksi_daemon.errors import ComponentBusy, ComponentClosed, FlipRefused, IoFailed
from ksi_daemon.flags import Stage
from ksi_daemon.messaging import AREA as MESSAGING
from ksi_daemon.site import Site
from ksi_daemon.switch import Flip, Switch, contract_methods
from tests.faults import HangingFile

SYNC, ASYNC = Stage.SYNC, Stage.ASYNC


class Shelf(Protocol):
    """A contract with a write and a read."""

    async def put(self, item: int) -> str:
        """Add an item."""

    async def look(self) -> list[int]:
        """All items."""


class Sides:
    """Both sides of a toy room: what was done on which, and gates at which the async side waits."""

    def __init__(self):
        self.done = []
        self.log = []
        self.go = asyncio.Event()
        self.go.set()
        self.open_error = {}

    def sync(self, _site):
        """The control."""
        return SyncShelf(self)

    def aio(self, _site):
        """The candidate."""
        return AsyncShelf(self)


class SyncShelf:
    """The control."""

    def __init__(self, sides):
        self.sides = sides

    def open(self):
        """Note it, or fail as told."""
        self.sides.log.append("open sync")
        if "sync" in self.sides.open_error:
            raise self.sides.open_error["sync"]

    def close(self):
        """Note it."""
        self.sides.log.append("close sync")

    def put(self, item):
        """Done at once."""
        self.sides.done.append(item)
        return "sync"

    def look(self):
        """What was done."""
        return list(self.sides.done)


class AsyncShelf(SyncShelf):
    """The candidate: waits while `go` is not set."""

    async def open(self):
        """Note it, or fail as told."""
        self.sides.log.append("open async")
        await asyncio.sleep(0)
        if "async" in self.sides.open_error:
            raise self.sides.open_error["async"]

    async def close(self):
        """Note it."""
        await asyncio.sleep(0)
        self.sides.log.append("close async")

    def pending(self):
        """Nothing to name."""
        return

    async def put(self, item):
        """Done when `go` is set."""
        await self.sides.go.wait()
        self.sides.done.append(item)
        return "async"

    async def look(self):
        """What was done, when `go` is set."""
        await self.sides.go.wait()
        return list(self.sides.done)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A place whose limits a test can wait for."""
    monkeypatch.setenv("KSI_CALL_TIMEOUT", "0.3")
    monkeypatch.setenv("KSI_DRAIN_TIMEOUT", "0.2")
    monkeypatch.setenv("KSI_STOP_TIMEOUT", "0.3")
    return Site("messaging", settings.load(tmp_path))


@pytest.fixture
async def sides():
    """The toy room's two sides."""
    return Sides()


def area(sides, kind="append"):
    """The toy room."""
    return Area(
        name="shelf",
        title="a toy",
        kind=kind,
        week=9,
        contract=Shelf,
        sync=sides.sync,
        aio=sides.aio,
        service=MESSAGING.service,
        exercise=MESSAGING.exercise,
        reads=frozenset({"look"}),
    )


async def turn(times=3):
    """Let everything that is ready run."""
    for _ in range(times):
        await asyncio.sleep(0)


async def at(sides, site, stage, kind="append"):
    """The toy room's switch, open at `stage`."""
    switch: Any = Switch(area(sides, kind), site)
    await switch.open(stage)
    return switch


def test_a_contracts_methods_are_its_own():
    """In the order in which it declares them, without what Protocol adds."""
    assert contract_methods(Shelf) == ("put", "look")


async def test_calls_go_to_the_side_in_force(sides, site):
    """Each contract method is there, on either side, and returns what the side returned."""
    switch = await at(sides, site, SYNC)
    assert (await switch.put(1), switch.stage) == ("sync", SYNC)

    assert await switch.flip(ASYNC)
    assert (await switch.put(2), switch.stage) == ("async", ASYNC)
    assert await switch.look() == [1, 2]
    assert sides.log == ["open sync", "open async", "close sync"]


async def test_a_flip_to_where_it_is_does_nothing(sides, site):
    """False, and neither side is touched."""
    switch = await at(sides, site, ASYNC)

    assert not await switch.flip(ASYNC)
    assert sides.log == ["open async"]
    assert switch.flipping() is None


async def test_a_closed_gate_keeps_the_order(sides, site):
    """Calls that come during a flip wait, then go on in their order and before any later call."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(0))
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()
    waiting = [asyncio.ensure_future(switch.put(number)) for number in range(1, 5)]
    await turn()
    assert sides.done == []
    sides.go.set()
    while switch.stage is ASYNC:
        await asyncio.sleep(0)
    later = [asyncio.ensure_future(switch.put(number)) for number in range(5, 8)]
    await asyncio.gather(running, flip, *waiting, *later)

    assert list(range(8)) == sides.done
    assert [await call for call in waiting] == ["sync"] * 4
    assert switch.put.__qualname__.startswith("_inline")  # the gate is off the path again


async def test_a_call_whose_turn_comes_in_the_next_flip_waits_again(sides, site):
    """Who waited through one flip and has not begun yet waits through the next, in order."""
    switch = await at(sides, site, SYNC)
    calls, number = [], 0

    async def put(item):
        await switch.put(item)

    flips = asyncio.ensure_future(asyncio.gather(*(switch.flip(to) for to in (ASYNC, SYNC, ASYNC, SYNC))))
    while not flips.done():
        for _ in range(2):
            calls.append(asyncio.ensure_future(put(number)))
            number += 1
        await asyncio.sleep(0)
    await asyncio.gather(*calls)

    assert list(range(number)) == sides.done
    assert number > 8


async def test_the_gate_closes_again_before_those_let_in_have_begun(sides, site):
    """Admitted as the next flip begins: they keep their places and begin on its new side."""
    switch = await at(sides, site, SYNC)

    def close_gate():
        switch._shut = True
        switch._bind()

    close_gate()
    waiting = [asyncio.ensure_future(switch.put(number)) for number in (1, 2)]
    await turn()
    switch._put_in_force(SYNC)
    close_gate()
    await turn(9)
    assert sides.done == []

    switch._put_in_force(ASYNC)
    assert [await call for call in waiting] == ["async", "async"]
    assert sides.done == [1, 2]


async def test_who_waits_again_is_not_overtaken(sides, site, monkeypatch):
    """One wakes while the gate is closed again, the next when it is open: they begin in their order."""
    monkeypatch.setattr(relaying, "SLICE", 1)
    switch, relay = await at(sides, site, SYNC), relaying.Relay()
    replies: list[bytes] = []

    async def put(number):
        return b"%d" % number + (await switch.put(number)).encode()

    switch._shut = True
    switch._bind()
    for number in range(5):
        relay.start(put(number), replies.append)
    first = switch._queue[0]
    switch._put_in_force(SYNC)
    switch._shut = True
    while switch._queue[0] is first:
        await asyncio.sleep(0)
    switch._put_in_force(ASYNC)
    while len(replies) < 5:
        await asyncio.sleep(0)

    assert sides.done == [0, 1, 2, 3, 4]
    assert switch._queue == deque()


async def test_reads_are_not_gated(sides, site):
    """A read goes through while a flip drains, on the side in force; the flip does not wait for it."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    writing, reading = asyncio.ensure_future(switch.put(1)), asyncio.ensure_future(switch.look())
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()
    second = asyncio.ensure_future(switch.look())
    await turn()
    assert switch.flipping().waits_for == "1 calls"
    sides.go.set()

    assert [await reading, await second] == [[1], [1]]
    await asyncio.gather(writing, flip)


async def test_a_read_component_does_not_wait_at_all(sides, site):
    """Its calls end on the side on which they began; new ones take the new side at once."""
    switch = await at(sides, site, ASYNC, kind="read")
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(1))
    await turn()

    assert await switch.flip(SYNC)
    assert await switch.put(2) == "sync"
    sides.go.set()
    assert await running == "async"


@pytest.mark.parametrize("call", ["put", "look"])
async def test_a_process_side_closes_when_its_last_call_has_ended(sides, site, call):
    """So a running turn is not taken from under its caller, and the flip does not wait for it."""
    switch = await at(sides, site, ASYNC, kind="process")
    sides.go.clear()
    running = asyncio.ensure_future(getattr(switch, call)(*([1] if call == "put" else [])))
    await turn()
    await switch.flip(SYNC)
    before = list(sides.log)
    sides.go.set()
    await running
    await switch.close()

    assert before == ["open async", "open sync"]
    assert sides.log[2:] == ["close sync", "close async"] or sides.log[2:] == ["close async", "close sync"]


async def test_a_process_side_that_comes_back_was_never_closed(sides, site):
    """It is not opened a second time under its running calls, and the other side is closed as usual."""
    switch = await at(sides, site, ASYNC, kind="process")
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(1))
    await turn()
    await switch.flip(SYNC)
    await switch.flip(ASYNC)
    await turn()
    log = list(sides.log)
    sides.go.set()

    assert await running == "async"
    assert await switch.put(2) == "async"
    assert log == ["open async", "open sync", "close sync"]
    await switch.close()
    assert sides.log == [*log, "close async"]


async def test_a_process_flip_back_and_forth_closes_after_all_calls(sides, site):
    """Calls of both times on a side keep it open."""
    switch = await at(sides, site, ASYNC, kind="process")
    sides.go.clear()
    running = [asyncio.ensure_future(switch.put(1))]
    await turn()
    await switch.flip(SYNC)
    await switch.flip(ASYNC)
    running.append(asyncio.ensure_future(switch.put(2)))
    await turn()
    await switch.flip(SYNC)
    await turn()
    before = sides.log.count("close async")
    sides.go.set()

    assert await asyncio.gather(*running) == ["async", "async"]
    await switch.close()
    assert (before, sides.log.count("close async")) == (0, 1)


async def test_an_upward_process_flip_that_cannot_open_is_refused(sides, site):
    """The old side goes on; a rollback goes on although its side cannot be opened."""
    switch = await at(sides, site, SYNC, kind="process")
    sides.open_error["async"] = ComponentClosed("shelf")

    with pytest.raises(FlipRefused, match="shelf stays at sync"):
        await switch.flip(ASYNC)
    assert await switch.put(1) == "sync"
    await switch.close()


async def test_an_upward_flip_is_refused_when_its_drain_is_too_long(sides, site):
    """After `drain_timeout` the old side goes on, with those who waited, in order; it can be tried again."""
    switch = await at(sides, site, Stage.CANARY)
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(0))
    await turn()
    flip = asyncio.ensure_future(switch.flip(ASYNC))
    await turn()
    waiting = [asyncio.ensure_future(switch.put(number)) for number in (1, 2)]

    with pytest.raises(FlipRefused, match=r"shelf stays at canary: after 0.2 s it still waits for 1 calls"):
        await flip
    assert (switch.stage, switch.flipping()) == (Stage.CANARY, None)
    sides.go.set()
    await asyncio.gather(running, *waiting)
    assert sides.done == [0, 1, 2]
    assert await switch.flip(ASYNC)


async def test_an_upward_flip_is_refused_when_the_new_side_cannot_open(sides, site):
    """The old side goes on and was never closed; the reason is the new side's own."""
    switch = await at(sides, site, SYNC)
    sides.open_error["async"] = IoFailed("shelf", "open it", OSError(28, "no space"))

    with pytest.raises(FlipRefused, match=r"stays at sync: shelf could not open it: no space \[ENOSPC\]"):
        await switch.flip(ASYNC)
    assert await switch.put(1) == "sync"
    assert sides.log == ["open sync", "open async"]


async def test_a_rollback_goes_through_although_the_old_side_cannot_open(sides, site):
    """Rollback is always accepted: each call then gets the error of its own attempt."""
    switch = await at(sides, site, ASYNC)
    sides.open_error["sync"] = IoFailed("shelf", "open it", OSError(13, "denied"))

    assert await switch.flip(SYNC)
    assert await switch.put(1) == "sync"
    assert "close async" in sides.log


async def test_a_fault_of_ours_while_opening_keeps_the_old_side(sides, site):
    """An exception that nobody expected opens the gate again."""
    switch = await at(sides, site, SYNC)
    sides.open_error["async"] = ZeroDivisionError()

    with pytest.raises(ZeroDivisionError):
        await switch.flip(ASYNC)
    assert await switch.put(1) == "sync"


async def test_a_start_at_sync_without_its_log(sides, site):
    """A component whose log cannot be opened begins at sync all the same."""
    switch: Any = Switch(area(sides), site)
    await switch.open_closed()

    assert (await switch.put(1), switch.stage) == ("sync", SYNC)


async def test_a_rollback_waits_and_says_for_what(sides, site):
    """It outlives `drain_timeout`, and status shows for how long and for which calls."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    running = [asyncio.ensure_future(switch.put(number)) for number in (1, 2)]
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await asyncio.sleep(2 * site.settings.drain_timeout)

    under_way = switch.flipping()
    assert isinstance(under_way, Flip)
    assert (under_way.to, under_way.waits_for) == (SYNC, "2 calls")
    assert under_way.for_s > site.settings.drain_timeout
    sides.go.set()
    assert await flip
    await asyncio.gather(*running)


async def test_a_flip_that_waits_for_nothing(sides, site):
    """Between drain and opening there is no call to name."""
    switch = await at(sides, site, SYNC)
    switch._under_way = (ASYNC, 0.0)

    assert switch.flipping().waits_for is None


async def test_a_call_at_the_gate_gives_up(sides, site):
    """component_busy after `call_timeout`, retryable; it takes no effect later."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(0))
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()

    with pytest.raises(ComponentBusy) as caught:
        await switch.put(1)
    assert caught.value.fields() == {"code": "component_busy", "component": "shelf", "retryable": True}
    sides.go.set()
    await asyncio.gather(flip, running)
    assert sides.done == [0]
    assert await switch.put(2) == "sync"


async def test_a_caller_cancelled_at_the_gate(sides, site):
    """It leaves the queue; those behind it keep their order."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(0))
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()
    waiting = [asyncio.ensure_future(switch.put(number)) for number in (1, 2, 3)]
    await turn()
    waiting[1].cancel()
    sides.go.set()
    await asyncio.gather(flip, running, *waiting, return_exceptions=True)

    assert sides.done == [0, 1, 3]


async def test_a_caller_cancelled_as_the_gate_opens(sides, site):
    """Cancelled in the step in which it would have been let in: it takes no effect, the next one does."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(0))
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()
    waiting = [asyncio.ensure_future(switch.put(number)) for number in (1, 2)]
    await turn()
    waiting[0].cancel()
    switch._put_in_force(ASYNC)  # as the end of the flip does, in the same step
    sides.go.set()
    await asyncio.gather(flip, running, *waiting, return_exceptions=True)

    assert {0, 2} == set(sides.done)


async def test_a_caller_let_in_as_its_time_is_up(sides, site):
    """Admitted and timed out in one step of the loop: admitted."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(0))
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()
    waiting = asyncio.ensure_future(switch.put(1))
    await turn()
    asyncio.get_running_loop().call_soon(switch._put_in_force, ASYNC)
    time.sleep(site.settings.call_timeout + 0.01)
    sides.go.set()

    assert list(await asyncio.gather(running, waiting)) == ["async", "async"]
    await flip


async def test_a_cancelled_call_releases_the_drain(sides, site):
    """A caller cancelled on the old side no longer holds up the flip."""
    switch = await at(sides, site, ASYNC)
    sides.go.clear()
    running = asyncio.ensure_future(switch.put(0))
    await turn()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()
    running.cancel()

    assert await asyncio.wait_for(flip, 1)


async def test_flips_wait_for_each_other(sides, site):
    """Two at once run one after the other; the last one wins."""
    switch = await at(sides, site, SYNC)

    done = await asyncio.gather(*(switch.flip(to) for to in (ASYNC, SYNC, SYNC)))

    assert list(done) == [True, True, False]
    assert SYNC is switch.stage


# with the real room


@pytest.fixture(params=[MESSAGING, COMPLETION], ids=["messaging", "completion"])
def room(request):
    """Each room that appends."""
    return request.param


@pytest.fixture
def hanging(room, monkeypatch):
    """The log's async side gets files whose disk can hang; the list of those made."""
    files: list[HangingFile] = []

    def made(path, component):
        files.append(HangingFile(path, component))
        return files[-1]

    monkeypatch.setattr(sys.modules[room.aio.__module__], "LineFile", made)
    yield files
    for file in files:
        file.answers.set()


def log_of(room, site):
    """The room's log."""
    return site.settings.root / room.exercise.files[0]


async def test_close_flushes(room, site, hanging):
    """What was accepted is in the file when `close` returns; a later call is refused."""
    switch: Any = Switch(room, site)
    await switch.open(ASYNC)
    calls = [asyncio.ensure_future(switch.append(b"%d\n" % number)) for number in range(50)]
    await asyncio.sleep(0)
    await switch.close()

    assert b"".join(b"%d\n" % number for number in range(50)) == log_of(room, site).read_bytes()
    assert await asyncio.gather(*calls) == [None] * 50
    with pytest.raises(ComponentClosed):
        await switch.append(b"late\n")


async def test_a_rollback_from_a_dead_disk(room, site, hanging):
    """The write that hangs is shown; its caller is answered after `call_timeout`, then sync is in force."""
    switch: Any = Switch(room, site)
    await switch.open(ASYNC)
    await switch.append(b"1\n")
    (file,) = hanging
    file.answers.clear()
    stuck = asyncio.ensure_future(switch.append(b"2\n"))
    await file.stuck()
    flip = asyncio.ensure_future(switch.flip(SYNC))
    await turn()
    assert switch.flipping().waits_for.startswith("a write of 1 lines, for 0.")

    assert await asyncio.wait_for(flip, 5)
    assert stuck.exception().code == "outcome_unknown"
    await switch.append(b"3\n")
    assert log_of(room, site).read_bytes() == b"1\n3\n"
    await switch.close()


async def test_a_flip_up_to_a_dead_disk_is_refused(room, site, monkeypatch):
    """An open that never returns does not keep the gate closed for ever: the old side goes on."""

    def dead(path, component):
        file = HangingFile(path, component)
        file.answers.clear()
        files.append(file)
        return file

    files: list[HangingFile] = []
    monkeypatch.setattr(sys.modules[room.aio.__module__], "LineFile", dead)
    switch: Any = Switch(room, site)
    await switch.open(SYNC)

    with pytest.raises(FlipRefused, match="ETIMEDOUT"):
        await switch.flip(ASYNC)
    files[0].answers.set()
    await switch.append(b"1\n")
    assert log_of(room, site).read_bytes() == b"1\n"


@pytest.mark.soak
async def test_flips_under_load_lose_nothing(room, tmp_path, count, seed):
    """Flips in both directions under 50 callers: every line once, in the order of the calls, none refused."""
    site = Site(room.name, settings.load(tmp_path))
    switch: Any = Switch(room, site)
    random_, over = random.Random(seed), asyncio.Event()
    await switch.open(SYNC)
    order = []

    async def call(caller):
        number = 0
        while not over.is_set():
            for _ in range(random_.randrange(1, 4)):
                order.append(line := b"%d %d\n" % (caller, number))
                number += 1
                await switch.append(line)
            await asyncio.sleep(random_.choice([0, 0, 0.001]))

    callers = [asyncio.create_task(call(caller)) for caller in range(50)]
    for _ in range(count(50, 1_000)):
        assert await switch.flip(ASYNC if switch.stage is SYNC else SYNC)
        await asyncio.sleep(random_.choice([0, 0, 0.002, 0.01]))
    over.set()
    await asyncio.gather(*callers)
    await switch.close()

    assert b"".join(order) == log_of(room, site).read_bytes()
