"""Cancelling requests on both sides, wherever they are on their way."""

from __future__ import annotations

import asyncio

import pytest

from ksi_daemon.completion import queue as queues
from ksi_daemon.router import Event
from tests.completions import answer, completions, session
from tests.rooms import SIDES


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room on either side, with a provider that does what a test tells it."""
    async with completions(request.param, tmp_path) as made:
        yield made


def event(name, handler):
    """An event of a test."""
    return Event(name, handler, "of a test")


async def test_a_queued_request_is_cancelled(room):
    """It never runs; the frame says so; those behind it go on."""
    room.provider.hold("a")
    for name in ("a", "b", "c"):
        await room.ask(name, session_id=session(2), agent_id="coder")
    reply = await room.send("completion:cancel", request_id="b")
    again = await room.send("completion:cancel", request_id="b")
    room.provider.let_go("a")
    await room.quiet()

    assert reply == {"request_id": "b", "status": "cancelled"}
    assert again == {"error": "Request b already cancelled", "code": "already_over"}
    assert room.provider.ended == ["a", "c"]
    assert room.frame("cancelled", "b") == {"request_id": "b", "agent_id": "coder"}
    assert room.told("result", "error") == [("result", "a"), ("result", "c")]


async def test_the_only_waiting_request_is_cancelled(room):
    """Its conversation is forgotten; a later request of it runs."""
    room.room.service._queue.parallel = 1
    room.provider.hold("a")
    await room.ask("a")
    await room.ask("b", session_id=session(2))
    await room.send("completion:cancel", request_id="b")
    left = await room.send("completion:status")
    await room.ask("c", session_id=session(2))
    room.provider.let_go("a")
    await room.quiet()

    assert left["queues"] == {}
    assert room.provider.ended == ["a", "c"]


async def test_a_running_request_is_cancelled(room):
    """Its turn is cancelled; its session is free only when that has ended, then those behind go on."""
    room.provider.hold("a")
    for name in ("a", "b"):
        await room.ask(name, session_id=session(2))
    await room.quiet()
    reply, status = await asyncio.gather(
        room.send("completion:cancel", request_id="a"), room.send("completion:status")
    )
    await room.quiet()

    during = [(one["request_id"], one["status"]) for one in status["active_requests"]]
    assert reply == {"request_id": "a", "status": "cancelled"}
    assert during == [("a", "cancelled")]
    assert (room.provider.cancelled, room.provider.ended) == (["a"], ["b"])
    assert room.told("cancelled", "result", "error") == [("cancelled", "a"), ("result", "b")]


async def test_a_request_is_cancelled_before_its_first_step(room):
    """In the moment in which it was given a task: it asks nobody, and its conversation goes on."""
    await room.ask("a", session_id=session(2))
    await room.send("completion:cancel", request_id="a")
    await room.ask("b", session_id=session(2))
    await room.quiet()

    assert room.provider.ended == ["b"]
    assert room.told() == [("cancelled", "a"), ("progress", "b"), ("result", "b")]


async def test_a_turn_that_ends_although_cancelled_is_dropped(room):
    """A provider that answers all the same: the client was told cancelled, and nothing else follows."""

    async def stubborn(data, _client):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return answer()

    room._router._direct["claude_cli:turn"] = ()
    room._router.add((event("claude_cli:turn", stubborn),))
    await room.ask("a")
    for _ in range(5):
        await asyncio.sleep(0)
    await room.send("completion:cancel", request_id="a")
    await room.quiet()

    assert room.told() == [("progress", "a"), ("cancelled", "a")]
    assert room.room.lines() == []


async def test_what_cannot_be_cancelled(room, monkeypatch):
    """No name, an unknown one, one that is over: the original's texts; over are the newest 1,000."""
    monkeypatch.setattr(queues, "REMEMBERED", 2)
    room.provider.replies["bad"] = [{"error": "no", "code": "cli_failed"}]
    for name in ("old", "a", "bad"):
        await room.ask(name)
        await room.quiet()
    found = [
        await room.send("completion:cancel", **({"request_id": name} if name else {}))
        for name in (None, "nobody", "old", "a", "bad")
    ]

    assert found == [
        {"error": "request_id required", "code": "missing_parameter"},
        {"error": "Unknown request_id: nobody", "code": "not_found"},
        {"error": "Unknown request_id: old", "code": "not_found"},
        {"error": "Request a already completed", "code": "already_over"},
        {"error": "Request bad already failed", "code": "already_over"},
    ]


async def test_an_answer_that_has_come_is_not_cancelled(room):
    """While its line is being written it counts as completed, and it is told."""
    room.provider.replies["a"] = [answer('{"event": "notes:slow"}')]
    slow = asyncio.Event()

    async def wait(_data, _client):
        await slow.wait()

    room._router.add((event("notes:slow", wait),))
    await room.ask("a")
    while not room.room.service._turns._emitting._tasks:
        await asyncio.sleep(0)
    refused = await room.send("completion:cancel", request_id="a")
    slow.set()
    await room.quiet()

    assert refused == {"error": "Request a already completed", "code": "already_over"}
    assert room.told("result", "cancelled") == [("result", "a")]
