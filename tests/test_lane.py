"""The lane and the hop: one waiting thread a component, and outcomes that no cancelled caller takes away."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from functools import partial

import pytest

from ksi_daemon.lane import Hop, Lane


async def test_calls_run_in_order_on_one_thread_of_its_own():
    """Not on the loop's thread, and in the order in which they were given."""
    lane, seen = Lane("ksi-test"), list[tuple[int, int]]()

    def note(number):
        seen.append((number, threading.get_ident()))

    await asyncio.gather(*(lane.run(partial(note, number)) for number in range(9)))
    await lane.close(1)

    assert list(range(9)) == [number for number, _ in seen]
    assert len({thread for _, thread in seen} - {threading.get_ident()}) == 1


async def test_results_and_errors_come_back():
    """`run` returns what the call returned and raises what it raised; the lane goes on."""
    lane = Lane("ksi-test")
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 // 0)

    assert await lane.run(lambda: 7) == 7
    assert await lane.close(1)


async def test_closing_a_lane_that_never_ran():
    """No thread was started, none has to end."""
    assert await Lane("ksi-test").close(1)


async def test_a_stuck_thread_is_left_behind():
    """`close` gives up in time; the thread ends when its call does."""
    lane, go = Lane("ksi-test"), threading.Event()
    running = asyncio.ensure_future(lane.run(go.wait))
    await asyncio.sleep(0)

    assert not await lane.close(0.05)
    go.set()
    assert await running


async def test_a_cancelled_caller_waits_for_the_end():
    """The `CancelledError` comes when the call is over, not before."""
    lane, go, ended = Lane("ksi-test"), threading.Event(), list[int]()

    def wait():
        go.wait(5)
        ended.append(1)

    caller = asyncio.ensure_future(lane.run(wait))
    await asyncio.sleep(0)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0.01)
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller

    assert ended == [1]
    await lane.close(1)


async def test_nothing_of_a_finished_call_is_kept():
    """While a lane waits it holds neither the last call nor its result."""

    class Kept:
        pass

    lane = Lane("ksi-test")
    kept = weakref.ref(await lane.run(Kept))
    await lane.run(lambda: None)
    gc.collect()

    assert kept() is None
    await lane.close(1)


def test_a_lane_outlives_its_loop():
    """When the loop is closed before a call ends, nobody is told and the thread raises nothing."""
    go, raised = threading.Event(), list[object]()
    before, threading.excepthook = threading.excepthook, raised.append

    async def begin():
        lane = Lane("ksi-test")
        lane.submit(lambda: go.wait(5), lambda _result, _error: None)
        return lane._thread

    thread = asyncio.run(begin())
    go.set()
    thread.join(0.2)
    threading.excepthook = before

    assert raised == []


# hops


async def test_all_waiters_share_one_outcome():
    """Ten callers, one result, the same object."""
    hop: Hop[object] = Hop(asyncio.get_running_loop())
    waiting = [asyncio.ensure_future(hop.outcome()) for _ in range(10)]
    await asyncio.sleep(0)
    hop.end(result := object(), None)

    assert [result] * 10 == await asyncio.gather(*waiting)
    assert hop.over


async def test_only_the_first_outcome_counts():
    """A later end changes nothing."""
    hop: Hop[object] = Hop(asyncio.get_running_loop())
    hop.end(1, None)
    hop.end(2, ValueError("late"))

    assert await hop.outcome() == 1


@pytest.mark.parametrize("error", [None, OSError("no")])
async def test_the_others_are_not_disturbed_by_a_cancelled_one(error):
    """Any caller may be cancelled, twice even: every other one gets the outcome, that one only at the end."""
    hop: Hop[object] = Hop(asyncio.get_running_loop())
    waiting = [asyncio.ensure_future(hop.outcome()) for _ in range(5)]
    await asyncio.sleep(0)
    for cancelled in (0, 3, 3):
        waiting[cancelled].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not any(caller.done() for caller in waiting)
    hop.end("done", error)

    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert [asyncio.CancelledError] * 2 == [type(found[0]), type(found[3])]
    assert [error or "done"] * 3 == [found[1], found[2], found[4]]


async def test_an_outcome_between_cancel_and_wake_is_kept():
    """Cancelled and ended in one step of the loop: the others still get the outcome."""
    hop: Hop[object] = Hop(asyncio.get_running_loop())
    first, second = asyncio.ensure_future(hop.outcome()), asyncio.ensure_future(hop.outcome())
    await asyncio.sleep(0)
    first.cancel()
    hop.end("done", None)

    found = await asyncio.gather(first, second, return_exceptions=True)

    assert [asyncio.CancelledError, str] == [type(one) for one in found]


async def test_an_error_that_nobody_awaits_is_no_fault():
    """All callers gone: no warning of an exception that was never retrieved."""
    told = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    hop: Hop[object] = Hop(loop)
    hop.end(None, OSError("no"))
    del hop
    gc.collect()
    await asyncio.sleep(0)

    assert told == []
