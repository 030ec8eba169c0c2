"""Identities on a store whose outcomes a test decides: memory is what the file holds, whatever comes when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon import settings
from ksi_daemon.agent.identities import Identities
from ksi_daemon.agent.overlay import Overlay, View
from ksi_daemon.errors import ComponentBusy, KsiError
from ksi_daemon.lane import CancelledTooLate, Hop
from ksi_daemon.site import Site

PATIENCE = 5.0
"""Seconds after which a caller counts as forgotten."""


class Gate:
    """A store that takes a view when `let_in` says so, as behind the switch's gate, and ends it when told."""

    def __init__(self, *, shut: bool = False):
        self.file: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self.shut = shut

    async def load(self):
        """Nothing."""
        return {}

    async def save(self, view, changed):
        """Wait at the gate, take the view, wait for the outcome."""
        loop = asyncio.get_running_loop()
        call: dict[str, Any] = {
            "in": loop.create_future(),
            "hop": Hop(loop),
            "changed": list(changed),
            "taken": None,
        }
        self.calls.append(call)
        if self.shut:
            await call["in"]
        call["taken"] = view.copy()
        await call["hop"].outcome()

    def succeed(self, number):
        """The file holds what that call's view had."""
        self.file = self.calls[number]["taken"]
        self.calls[number]["hop"].end(None, None)

    def refuse(self, number):
        """That call fails."""
        self.calls[number]["hop"].end(None, ComponentBusy("agent", 1))


@pytest.fixture
async def gate():
    """A store that is open; at the end nobody waits for it."""
    found = Gate()
    yield found
    for call in found.calls:
        call["in"].cancel()
        call["hop"].end(None, None)
    await quiet()


@pytest.fixture
async def made(gate, tmp_path):
    """Identities on it, loaded."""
    found = Identities(gate, Site("agent", settings.load(tmp_path)))
    await found.start()
    return found


async def begin(coroutine):
    """A task that has gone as far as it can."""
    task = asyncio.create_task(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


def update(made, agent, **updates):
    """An update."""
    return made.update({"agent_id": agent, "updates": updates}, None)


def create(made, agent, **identity):
    """A new identity."""
    return made.create({"agent_id": agent, "identity": identity}, None)


async def ended(*tasks):
    """Wait until they are over."""
    _, late = await asyncio.wait(tasks, timeout=PATIENCE)
    for task in late:
        task.cancel()
    assert not late


async def quiet():
    """Let what was told arrive."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nobody_reads_what_is_not_saved(made, gate):
    """It is in memory when its save has succeeded, and not before."""
    task = await begin(create(made, "a"))
    before = await made.list({}, None)
    gate.succeed(0)
    await task

    assert (before["count"], list(made.saved)) == (0, ["a"])
    assert gate.file == made.saved


async def test_an_outcome_that_comes_early_brings_those_before_it(made, gate):
    """The second caller wakes up first: its view held the first change, so both are saved, in order."""
    first, second = await begin(create(made, "a", n=1)), await begin(update(made, "a", m=2))
    gate.succeed(1)
    await second
    saved = dict(made.saved)
    gate.calls[0]["hop"].end(None, None)
    await first

    assert saved == gate.file == made.saved
    assert (made.saved["a"]["n"], made.saved["a"]["m"]) == (1, 2)


async def test_a_failure_takes_those_behind_it_along(made, gate):
    """What was built on a failed change is not handed over any more; what came before it stands."""
    gate.shut = True
    tasks = [await begin(create(made, name)) for name in ("a", "b", "c")]
    gate.calls[0]["in"].set_result(None)
    gate.calls[1]["in"].set_result(None)
    await quiet()
    gate.refuse(1)
    await ended(tasks[1])
    gate.calls[2]["in"].set_result(None)
    await ended(tasks[2])
    gate.succeed(0)
    await tasks[0]

    assert [type(task.exception()) for task in tasks] == [type(None), ComponentBusy, ComponentBusy]
    assert list(made.saved) == list(gate.file) == ["a"]


async def test_a_late_caller_builds_on_what_is_left(made, gate):
    """After a failure the next change is laid over what is saved, and names what had fallen."""
    first = await begin(create(made, "a"))
    gate.refuse(0)
    await ended(first)
    second = await begin(create(made, "b"))
    gate.succeed(1)
    await second

    assert isinstance(first.exception(), ComponentBusy)
    assert gate.calls[1]["changed"] == ["b", "a"]
    assert list(gate.file) == list(made.saved) == ["b"]


async def test_what_was_saved_on_top_of_a_failure_is_made_again(made, gate):
    """The store took the second one before the first one's failure was known: its file holds both."""
    await asyncio.gather(await begin(create(made, "x")), begin_and_succeed(gate, 0))
    first, second = await begin(update(made, "x", a=1)), await begin(update(made, "x", b=2))
    gate.refuse(1)
    await ended(first)
    gate.succeed(2)
    await quiet()
    assert "a" in gate.file["x"]
    assert len(gate.calls) == 4
    gate.succeed(3)
    await second

    assert "a" not in gate.file["x"]
    assert gate.file["x"]["b"] == 2
    assert gate.file == made.saved


async def begin_and_succeed(gate, number):
    """Have a call succeed."""
    gate.succeed(number)


async def test_a_cancelled_change_that_was_saved_is_kept(made, gate):
    """It was too late to cancel it."""
    task = await begin(create(made, "a"))
    task.cancel()
    await quiet()
    gate.succeed(0)
    await ended(task)

    assert task.cancelled()
    assert list(made.saved) == list(gate.file) == ["a"]


async def test_a_cancelled_change_that_failed_is_not(made, gate):
    """Its caller gets no error, but the change is gone."""
    task = await begin(create(made, "a"))
    task.cancel()
    await quiet()
    gate.refuse(0)
    await ended(task)

    assert task.cancelled()
    assert dict(made.saved) == {}
    again = await begin(update(made, "a"))
    with pytest.raises(KsiError, match="Identity for a not found"):
        await again


async def test_a_change_cancelled_at_the_gate_is_withdrawn(made, gate):
    """It was never handed over; those behind it go on without it."""
    gate.shut = True
    first, second = await begin(create(made, "a")), await begin(create(made, "b"))
    first.cancel()
    await quiet()
    gate.calls[1]["in"].set_result(None)
    await quiet()
    gate.succeed(1)
    await second

    assert first.cancelled()
    assert list(made.saved) == list(gate.file) == ["b"]


async def test_a_view_behind_the_gate_holds_nothing_that_came_later(made, gate):
    """Whoever came later is not answered yet, and may still be refused."""
    gate.shut = True
    tasks = [await begin(create(made, name)) for name in ("a", "b")]
    for call in gate.calls:
        call["in"].set_result(None)
    await quiet()
    gate.succeed(0)
    gate.refuse(1)
    await ended(*tasks)

    assert list(gate.file) == list(made.saved) == ["a"]


async def test_an_unexpected_error_of_the_store_leaves_nothing(made, gate):
    """A fault of ours is no reason to keep what is not saved."""
    task = await begin(create(made, "a"))
    gate.calls[0]["hop"].end(None, RuntimeError("a fault"))
    await ended(task)

    assert isinstance(task.exception(), RuntimeError)
    assert len(made._overlay) == 0
    assert dict(made.saved) == {}


async def test_a_stop_waits_for_what_is_under_way(made, gate):
    """And not for ever."""
    task = await begin(create(made, "a"))
    stop = await begin(made.stop())
    assert not stop.done()
    gate.succeed(0)
    await asyncio.gather(task, stop)
    await made.stop()

    hanging = await begin(create(made, "b"))
    await made.stop()
    assert not hanging.done()
    gate.succeed(1)
    await hanging


async def test_the_file_is_loaded_once_for_all(tmp_path, monkeypatch):
    """Requests that come meanwhile wait for the same load; one that fails is tried again."""
    store, loads = Gate(), []
    found = Identities(store, Site("agent", settings.load(tmp_path)))

    async def load() -> dict[str, Any]:
        loads.append(1)
        await asyncio.sleep(0)
        if len(loads) == 1:
            raise ComponentBusy("agent", 1)
        return {"a": {}}

    monkeypatch.setattr(store, "load", load)
    await found.start()
    answers = await asyncio.gather(*(found.list({}, None) for _ in range(5)))
    assert [answer["count"] for answer in answers] == [1] * 5
    assert len(loads) == 2


def test_a_view_reads_like_a_dict():
    """Before and after later changes, and with one removed."""
    overlay = Overlay({"a": {"n": 1}, "b": {}})
    change = overlay.add({"c": {}, "a": None})
    view = View(overlay, change)

    for _ in range(2):
        assert (dict(view), list(view), len(view)) == ({"b": {}, "c": {}}, ["b", "c"], 2)
        assert ("a" in view, "b" in view, view["c"], repr(view)) == (False, True, {}, "{'b': {}, 'c': {}}")
        overlay.add({"d": {}})
    overlay.withdraw(change)
    overlay.withdraw(change)
    assert list(overlay.latest) == ["a", "b", "d"]


_STEP = st.tuples(
    st.sampled_from(["add", "drop", "done", "fall", "withdraw"]), st.integers(0, 3), st.integers(0, 5)
)


class Plainly:
    """An overlay, and beside it what it must hold: done changes in a dict, those under way in a list."""

    def __init__(self):
        self.overlay = Overlay()
        self.saved: dict = {}
        self.under_way: list = []

    def do(self, what, agent, which):
        """One step; nothing where there is no such change."""
        if what in ("add", "drop"):
            identity = {"n": len(self.under_way)} if what == "add" else None
            self.under_way.append(self.overlay.add({str(agent): identity}))
        elif which < len(self.under_way):
            getattr(self, what)(which)

    def done(self, which):
        """A change and all before it enter what is saved."""
        assert self.overlay.done(self.under_way[which])
        self.saved = dict(self.after(which + 1))
        del self.under_way[: which + 1]

    def fall(self, which):
        """A change and all behind it are gone, and their views tell why."""
        self.overlay.fall(self.under_way[which], ValueError("down"))
        for fallen in self.under_way[which:]:
            assert not self.overlay.done(fallen)
            with pytest.raises(ValueError, match="down"):
                View(self.overlay, fallen).copy()
        del self.under_way[which:]

    def withdraw(self, which):
        """A change is gone, the others stand."""
        self.overlay.withdraw(self.under_way.pop(which))

    def after(self, count):
        """All identities after so many of the changes under way."""
        found = dict(self.saved)
        for change in self.under_way[:count]:
            ((agent, identity),) = change.values.items()
            if identity is None:
                found.pop(agent, None)
            else:
                found[agent] = identity
        return list(found.items())


@given(st.lists(_STEP, max_size=40))
def test_any_order_of_outcomes_leaves_what_a_plain_list_would(steps):
    """`saved` is what is done, in order; `latest` what is under way on top; each view is a prefix of that."""
    plainly = Plainly()
    for step in steps:
        plainly.do(*step)

        assert list(plainly.overlay.saved.items()) == list(plainly.saved.items())
        views = [View(plainly.overlay, change).copy() for change in plainly.under_way]
        expected = [plainly.after(count + 1) for count in range(len(views))]
        assert [list(view.items()) for view in views] == expected
        assert list(plainly.overlay.latest.items()) == plainly.after(len(views))


def test_too_late_is_a_cancellation():
    """The order of the handlers in `Identities` depends on it."""
    assert issubclass(CancelledTooLate, asyncio.CancelledError)
