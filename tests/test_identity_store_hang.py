"""The async identity store under load: shared writes, cancelled callers, and a disk that hangs."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import threading
from typing import Any

import pytest

from ksi_daemon.agent import core
from ksi_daemon.agent.store import Store, uncollected
from ksi_daemon.errors import ComponentBusy, ComponentClosed, IoFailed, OutcomeUnknown
from ksi_daemon.lane import CancelledTooLate
from tests.faults import counted
from tests.guard import loop_guard
from tests.identity_sides import beside, identity, made, many, opened, outcome, planted, site_of, stored
from tests.rooms import SIDES
from tests.threads import new

OLD = many(3)


class HangingStore(Store):
    """A store whose disk hangs while `answers` is not set: before a write, in it, or when it is done."""

    def __init__(self, site):
        super().__init__(site)
        self.answers = threading.Event()
        self.answers.set()
        self.begun = threading.Event()
        self.where = "before"
        self.writes = 0
        self.over = 0

    def open(self):
        """Sweep, when the disk answers."""
        self._hang("before")
        super().open()

    def read(self, decode):
        """Read, when the disk answers."""
        self._hang("before")
        return super().read(decode)

    def replace(self, write, wanted=lambda: True):
        """Count the write and do it, when the disk answers."""
        self.writes += 1
        self._hang("before")
        try:
            super().replace(lambda fd: (write(fd), self._hang("in"))[0], wanted)
            self._hang("behind")
        finally:
            self.over += 1

    def _hang(self, where):
        if where == self.where and not self.answers.is_set():
            self.begun.set()
            assert self.answers.wait(30)

    async def stuck(self):
        """Wait until a call hangs."""
        while not self.begun.is_set():
            await asyncio.sleep(0.001)
        self.begun.clear()

    async def idle(self):
        """Wait until every write that began has ended, whoever still waits for it."""
        while self.over < self.writes:
            await asyncio.sleep(0.001)


def hanging(site):
    """An async store that is not open yet, and its disk."""
    store = made("async", site)
    store._store = HangingStore(site)
    return store, store._store


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A place with limits so short that a test can wait for them."""
    monkeypatch.setenv("KSI_CALL_TIMEOUT", "0.3")
    monkeypatch.setenv("KSI_STOP_TIMEOUT", "0.3")
    return site_of(tmp_path)


@pytest.fixture
def patient(tmp_path):
    """The same with the default limits."""
    return site_of(tmp_path)


@pytest.fixture
async def stuck(site):
    """A store on a file that is there, open, and its disk, which answers again at the end."""
    planted(site, stored(OLD))
    store, disk = hanging(site)
    await store.open()
    await store.save(OLD, [])
    yield store, disk
    disk.answers.set()
    await disk.idle()
    await store.close()


def begin(store, *views):
    """Saves that have begun, each of a view and one changed id."""
    return [asyncio.ensure_future(outcome(store.save(view, [agent]))) for view, agent in views]


def content(site):
    """What is in the file."""
    return site.settings.identity_storage_path.read_bytes()


# shared writes


@pytest.mark.parametrize("begun", [False, True])
async def test_a_thousand_saves_share_a_few_writes(patient, begun):
    """Each is in the file when its caller goes on; at most three writes for all of them."""
    store, disk = hanging(patient)
    await store.open()
    wanted = many(200)
    if begun:
        await store.save(wanted, list(wanted))
    before = disk.writes

    async def call(number):
        agent = f"agent-{number % 300}"
        wanted[agent] = mine = identity(number)
        await store.save(dict(wanted), [agent])
        found = json.loads(content(patient))[agent]
        assert found["n"] >= mine["n"]

    with loop_guard(stall_ms=5_000):
        await asyncio.gather(*map(call, range(1_000)))
        await store.close()

    assert content(patient) == stored(wanted)
    assert disk.writes - before <= 3


async def test_saves_take_effect_in_their_order(patient):
    """One behind the other, also when many changes of the same identities come while one is written."""
    rng, calls = random.Random(5), []
    wanted: dict[str, int] = {}
    async with opened("async", patient) as store:
        for number in range(600):
            agent = f"agent-{rng.randrange(20)}"
            if agent in wanted and rng.random() < 0.4:
                del wanted[agent]
            else:
                wanted[agent] = number
            calls.append(asyncio.ensure_future(store.save(dict(wanted), [agent])))
            if rng.random() < 0.2:
                await asyncio.sleep(rng.choice([0, 0, 0.001]))
        await asyncio.gather(*calls)

    assert content(patient) == stored(wanted)


@pytest.mark.parametrize("durability", ["os", "fsync"])
async def test_cancelled_saves_and_readers(tmp_path, seed, durability):
    """300 saves, a third cancelled: no reader finds a part, and the last submitted change of each wins."""
    site, rng, wanted, over, wrong = (
        site_of(tmp_path, durability),
        random.Random(seed),
        {},
        threading.Event(),
        [],
    )
    path = planted(site, b"{}")

    def read():
        while not over.is_set():
            try:
                json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        async with opened("async", site) as store:
            calls = []
            for number in range(300):
                agent = f"agent-{rng.randrange(40)}"
                wanted[agent] = identity(number, 400)
                calls += begin(store, (dict(wanted), agent))
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
                    rng.choice(calls).cancel()
                if rng.random() < 0.1:
                    await asyncio.sleep(0.002)
            found = await asyncio.gather(*calls)
    finally:
        over.set()
        for reader in readers:
            reader.join()

    assert wrong == []
    assert set(found) == {None, (CancelledTooLate, type(None))}
    assert path.read_bytes() == stored(wanted)
    assert beside(site) == ["identities.json"]


async def test_the_last_submitted_change_wins_though_all_are_cancelled(patient):
    """Every caller that had begun is told that its change was written, and it was."""
    wanted: dict[str, Any] = {}
    calls: list[Any] = []
    async with opened("async", patient) as store:
        for number in range(300):
            wanted[f"agent-{number % 40}"] = identity(number)
            calls += begin(store, (dict(wanted), f"agent-{number % 40}"))
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        found = await asyncio.gather(*calls)

    assert found == [(CancelledTooLate, type(None))] * 300
    assert content(patient) == stored(wanted)


async def test_a_cancelled_caller_of_a_failed_save(patient, monkeypatch):
    """Its `CancelledTooLate` carries the error; the others of the write get the error itself."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    async with opened("async", patient) as store:
        monkeypatch.setattr(os, "rename", refuse)
        calls = begin(store, ({"a": 1}, "a"), ({"a": 1, "b": 2}, "b"))
        await asyncio.sleep(0)
        calls[0].cancel()
        found = await asyncio.gather(*calls)

    assert found == [(CancelledTooLate, IoFailed), IoFailed]


# a disk that hangs


@pytest.mark.parametrize("where", ["before", "in"])
async def test_a_write_that_wakes_too_late_takes_no_effect(stuck, site, where):
    """Answered in time: outcome_unknown for the one in flight, component_busy for all behind it."""
    (store, disk), lost = stuck, {**OLD, "lost": 1}
    disk.where = where
    disk.answers.clear()
    calls = begin(store, (lost, "lost"))
    await disk.stuck()
    calls += begin(store, ({**lost, "b": 2}, "b"), ({**lost, "b": 2, "c": 3}, "c"))
    with loop_guard(stall_ms=5_000):
        assert await asyncio.gather(*calls) == [OutcomeUnknown, ComponentBusy, ComponentBusy]
        assert await outcome(store.save({**OLD, "d": 4}, ["d"])) is ComponentBusy
    assert store.pending().startswith("a write of 1 changed identities, for 0.")

    disk.answers.set()
    while store.pending() is not None:
        await asyncio.sleep(0.001)
    assert (content(site), beside(site)) == (stored(OLD), ["identities.json"])

    await store.save({**OLD, "last": 5}, ["last"])
    assert content(site) == stored({**OLD, "last": 5})


async def test_a_write_that_came_through_after_its_callers_were_answered(stuck, site):
    """The next save writes what the service says, without the change whose outcome was unknown."""
    store, disk = stuck
    disk.where = "behind"
    disk.answers.clear()
    calls = begin(store, ({**OLD, "lost": 1}, "lost"))
    await disk.stuck()
    assert await asyncio.gather(*calls) == [OutcomeUnknown]
    calls = begin(store, ({**OLD, "b": 2}, "b"))
    await asyncio.sleep(0)
    disk.answers.set()
    assert await asyncio.gather(*calls) == [ComponentBusy]

    assert content(site) == stored({**OLD, "lost": 1})
    await store.save({**OLD, "last": 5}, ["last"])
    assert content(site) == stored({**OLD, "last": 5})


@pytest.mark.parametrize("where", ["before", "in"])
async def test_a_close_on_a_hanging_disk(stuck, site, where):
    """In time; who waits is answered, nothing takes effect later, and the store can be opened again."""
    store, disk = stuck
    disk.where = where
    disk.answers.clear()
    calls = begin(store, ({**OLD, "lost": 1}, "lost"))
    await disk.stuck()
    calls += begin(store, ({**OLD, "lost": 1, "b": 2}, "b"))
    await asyncio.sleep(0)
    await asyncio.wait_for(store.close(), 5)
    found = await asyncio.gather(*calls)
    kept = content(site)

    disk.answers.set()
    await disk.idle()
    assert found == [OutcomeUnknown, ComponentBusy]
    assert (kept, content(site)) == (stored(OLD), stored(OLD))

    await store.open()
    await store.save({**OLD, "last": 5}, ["last"])
    assert (content(site), beside(site)) == (stored({**OLD, "last": 5}), ["identities.json"])


async def test_a_close_that_is_cancelled(patient):
    """By a stop that has no time left: at once, and who waits is answered."""
    store, disk = hanging(patient)
    await store.open()
    disk.answers.clear()
    calls = begin(store, (OLD, "agent-0"))
    await disk.stuck()
    calls += begin(store, (OLD, "agent-1"))
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    found = await asyncio.gather(*calls)
    with pytest.raises(asyncio.CancelledError):
        await closing
    disk.answers.set()
    await disk.idle()

    assert found == [OutcomeUnknown, ComponentBusy]
    assert beside(patient) == []


async def test_a_close_while_pages_are_made(site, monkeypatch):
    """A build that takes longer than the stop has is given up; nothing is written."""
    monkeypatch.setattr("ksi_daemon.agent.aio.SLICE_S", 0.0)
    go_on, sleep = asyncio.Event(), asyncio.sleep

    async def slow(_seconds):
        await go_on.wait()

    async with opened("async", site) as store:
        calls = begin(store, (OLD, "agent-0"))
        with monkeypatch.context() as patched:
            await sleep(0)
            patched.setattr(asyncio, "sleep", slow)
            await store.close()
        found = await asyncio.gather(*calls)

    assert (found, beside(site)) == ([OutcomeUnknown], [])


@pytest.mark.parametrize("what", ["open", "load"])
async def test_an_open_and_a_load_on_a_hanging_disk(site, what):
    """io_error in time; when the disk answers again, both work."""
    planted(site, stored(OLD))
    store, disk = hanging(site)
    if what == "load":
        await store.open()
    disk.answers.clear()
    with pytest.raises(IoFailed, match="ETIMEDOUT"):
        await getattr(store, what)()
    if what == "open":
        for call in (store.load(), store.save(OLD, [])):
            assert await outcome(call) is ComponentClosed
    disk.answers.set()
    if what == "open":
        await store.open()

    assert await store.load() == OLD
    await store.close()


async def test_an_open_that_is_cancelled(site):
    """Its thread ends when the disk answers; the store is closed, and can be opened again."""
    store, disk = hanging(site)
    disk.answers.clear()
    opening = asyncio.ensure_future(store.open())
    await disk.stuck()
    writers = [one for one in new() if one.name == "ksi-agent-writer"]
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert await outcome(store.save(OLD, [])) is ComponentClosed
    disk.answers.set()
    for thread in writers:
        await asyncio.to_thread(thread.join, 5)

    assert [thread.is_alive() for thread in writers] == [False]


async def test_a_closed_store_refuses(patient):
    """component_closed for both calls, and no thread is started; closing twice is harmless."""
    store = made("async", patient)
    await store.open()
    await store.close()
    await store.close()
    before = len(new())

    assert [await outcome(store.load()), await outcome(store.save(OLD, []))] == [ComponentClosed] * 2
    assert (len(new()), beside(patient)) == (before, [])


async def test_close_writes_what_waits(patient):
    """Saves that have begun are in the file when the close returns."""
    store = made("async", patient)
    await store.open()
    calls = begin(store, (OLD, "agent-0"), ({**OLD, "b": 2}, "b"))
    await asyncio.sleep(0)
    await store.close()

    assert await asyncio.gather(*calls) == [None, None]
    assert content(patient) == stored({**OLD, "b": 2})


async def test_giving_up_before_the_write_begins(patient):
    """What is still waiting is answered, and nothing is written."""
    store, disk = hanging(patient)
    await store.open()
    calls = begin(store, (OLD, "agent-0"))
    await asyncio.sleep(0)
    store._give_up(1.0)

    assert await asyncio.gather(*calls) == [ComponentBusy]
    await store.close()
    assert disk.writes == 0


# failures at random


class Model:
    """A service as the contract wants it: what is saved, and the changes whose saves are under way."""

    def __init__(self, store, rng):
        self.store, self.rng = store, rng
        self.saved, self.under_way, self.order = {}, [], []

    async def change(self):
        """Make one change, and keep or drop it."""
        view = dict(self.saved)
        for agent, value in self.under_way:
            core.apply(view, agent, value)
        agent = f"agent-{self.rng.randrange(12)}"
        mine = (agent, None if agent in view and self.rng.random() < 0.4 else self.rng.randrange(1000))
        core.apply(view, *mine)
        self.under_way.append(mine)
        try:
            await self.store.save(view, [agent])
        except IoFailed:
            self.order.append("failed")
        else:
            self.order.append("saved")
            core.apply(self.saved, *mine)
        self.under_way.remove(mine)


async def test_writes_that_fail_at_random(patient, seed, monkeypatch):
    """Whenever nothing is under way the file is what the service has, to the byte, whoever failed before."""
    rng, rename = random.Random(seed), os.rename

    def now_and_then(*names, **places):
        if rng.random() < 0.3:
            raise OSError(28, "No space left on device")
        rename(*names, **places)

    async with opened("async", patient) as store:
        model = Model(store, rng)
        await store.save({}, [])
        monkeypatch.setattr(os, "rename", now_and_then)
        for _ in range(60):
            calls = []
            for _ in range(rng.randrange(1, 12)):
                calls.append(asyncio.ensure_future(model.change()))
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(rng.choice([0, 0, 0.0005]))
            await asyncio.gather(*calls)
            assert content(patient) == stored(model.saved)

    assert {"failed", "saved"} == set(model.order)
    assert beside(patient) == ["identities.json"]


# the loop


async def test_twenty_thousand_identities_do_not_block_the_loop(patient):
    """Nothing that may block is called on it: open, load, first save, updates, a save of many, close."""
    wanted = many(20_000)
    path = planted(patient, stored(wanted))
    with loop_guard(stall_ms=2_000):
        store = made("async", patient)
        await store.open()
        loaded = await store.load()
        for number in range(5):
            loaded[f"agent-{number}"] = wanted[f"agent-{number}"] = number
            await store.save(loaded, [f"agent-{number}"])
        await store.save(loaded, list(loaded)[:1_000])
        await store.close()

    assert loaded == wanted
    assert path.read_bytes() == stored(wanted)


async def test_others_run_while_it_loads_and_encodes(patient):
    """The loop has turns during both, not one long wait."""
    planted(patient, stored(many(5_000)))
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with opened("async", patient) as store:
        turning = asyncio.ensure_future(turn())
        loaded = await store.load()
        first, turns = turns, 0
        await store.save(loaded, [])
        second = turns
        turning.cancel()

    assert first > 10
    assert second > 10


@pytest.mark.parametrize("side", SIDES)
async def test_both_sides_are_as_durable_as_they_say(tmp_path, side, monkeypatch):
    """`os` asks for no fsync; `fsync` for one of the file and one of its directory, and can be changed."""
    site, calls = site_of(tmp_path), counted(monkeypatch, "fsync")
    async with opened(side, site) as store:
        await store.save(OLD, [])
        none = len(calls)
        site.durability = "fsync"
        await store.save(OLD, [])

    assert (none, len(calls)) == (0, 2)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    """A large file is decoded without it; it goes on only where it ran before."""
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
        gc.unfreeze()
