"""Failures on both sides: how they are told, which are tried again, when, and how often."""

from __future__ import annotations

import asyncio

import pytest

from ksi_daemon.completion import turns
from tests.completions import BUSY, answer, completions, log_of, session
from tests.rooms import SIDES


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room on either side, with a provider that does what a test tells it."""
    async with completions(request.param, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "text",
        {"status": "completed"},
        {**answer(), "response": []},
        {**answer(), "session_id": "../../etc"},
        {**answer(), "session_id": 5},
        {**answer(), "duration_ms": "7"},
    ],
)
async def test_a_reply_that_is_no_answer_is_bad_output(room, reply):
    """Whatever lacks the expected keys ends with an error; nothing is logged or counted."""
    room.provider.replies["a"] = [reply]
    await room.ask("a", session_id=session(4))
    await room.quiet()

    found = room.frame("error", "a")
    assert (list(found), found["code"], found["session_id"]) == (
        ["request_id", "error", "session_id", "code"],
        "bad_output",
        session(4),
    )
    assert room.room.lines() == []
    assert not log_of(room.room.path.parents[3], 4).exists()


async def test_a_failure_is_told_in_the_providers_words(room):
    """Text, code and what else the provider says; the session is the request's; the next one runs."""
    failed = {"error": "Invalid API key", "code": "api_error", "retryable": False, "api_status": 401}
    room.provider.replies["a"] = [{"status": "error", **failed}]
    await room.ask("a", agent_id="coder", session_id=session(2))
    await room.ask("b", session_id=session(2))
    await room.quiet()

    assert room.frame("error", "a") == {
        "request_id": "a",
        "error": "Invalid API key",
        "session_id": session(2),
        "code": "api_error",
        "retryable": False,
        "api_status": 401,
        "agent_id": "coder",
    }
    assert room.told("result") == [("result", "b")]
    assert await room.send("completion:provider_status") == {
        "providers": {"claude-cli": {"ok": 1, "failed": 1, "last_error": "api_error"}}
    }


async def test_a_missing_provider_is_an_error(room):
    """Without a room that answers `claude_cli:turn` the client is told."""
    room._router._direct["claude_cli:turn"] = ()
    del room._router._direct["claude_cli:turn"]
    await room.ask("a")
    await room.quiet()

    assert room.frame("error", "a")["code"] == "unknown_event"


async def test_a_retryable_failure_is_tried_again(room):
    """Each retry is told with its delay, which doubles; then the answer comes as ever."""
    room.provider.replies["a"] = [BUSY, {**BUSY, "code": "start_failed"}, answer()]
    await room.ask("a", agent_id="coder")
    await room.quiet()

    told = [frame["data"] for frame in room.frames]
    base = {"request_id": "a", "session_id": None, "provider": "claude-cli"}
    text = BUSY["error"]
    assert told[:3] == [
        {**base, "status": "calling_provider"},
        {
            **base,
            "status": "retrying",
            "attempt": 1,
            "delay_s": 0.001,
            "error": text,
            "code": "api_error",
        },
        {
            **base,
            "status": "retrying",
            "attempt": 2,
            "delay_s": 0.002,
            "error": text,
            "code": "start_failed",
        },
    ]
    assert room.told("result", "error") == [("result", "a")]
    assert len(room.provider.asked) == 3


async def test_retries_are_bounded(room):
    """After KSI_COMPLETION_RETRIES the failure is told, once."""
    room.provider.replies["a"] = [BUSY]
    await room.ask("a")
    await room.quiet()

    assert len(room.provider.asked) == 1 + room.room.site.settings.completion_retries
    assert room.frame("error", "a")["error"] == BUSY["error"]


@pytest.mark.parametrize("changed", [{"retryable": False}, {"retryable": None}, {"code": "turn_timeout"}])
async def test_other_failures_are_final(room, changed):
    """Only api_error and start_failed, and only when they say so: after a kill a retry would send twice."""
    room.provider.replies["a"] = [{**BUSY, **changed}]
    await room.ask("a")
    await room.quiet()

    assert len(room.provider.asked) == 1


async def test_a_retry_holds_its_session_and_nobody_else(room):
    """While it waits it is shown, takes no slot, and its own session's requests stay behind it."""
    room.change(claude_retry_backoff=60)
    room.room.service._queue.parallel = 1
    room.provider.replies["a"] = [BUSY]
    await room.ask("a", session_id=session(2))
    await room.ask("b", session_id=session(2))
    await room.ask("c", session_id=session(3))
    while ("result", "c") not in room.told():
        await asyncio.sleep(0.001)
    status = await room.send("completion:status")
    shown = await room.send("completion:retry_status")
    await room.send("completion:cancel", request_id="a")
    await room.quiet()

    retry = {
        "request_id": "a",
        "attempt": 1,
        "delay_s": 60.0,
        "error": BUSY["error"],
        "code": "api_error",
    }
    assert (shown, status["retries"]) == ({"retries": [retry], "total": 1}, [retry])
    assert [(one["request_id"], one["status"]) for one in status["active_requests"]] == [("a", "retrying")]
    assert room.told("cancelled", "result") == [("result", "c"), ("cancelled", "a"), ("result", "b")]


async def test_a_retry_that_waits_for_a_slot_keeps_its_place(room):
    """It stands before the later requests of its session; cancelled there, it does not run again."""
    room.room.service._queue.parallel = 1
    room.provider.replies["a"] = [BUSY, answer()]
    room.provider.hold("c")
    for name, number in (("a", 2), ("b", 2), ("c", 3)):
        await room.ask(name, session_id=session(number))
    while room.room.service._queue.depths() != {session(2): 2}:
        await asyncio.sleep(0.001)
    order, _ = room.room.service._queue.line(session(2))
    room.provider.let_go("c")
    await room.quiet()

    assert order == ["a", "b"]
    assert room.told("result") == [("result", "c"), ("result", "a"), ("result", "b")]


async def test_an_attempt_that_ended_late_frees_nobody(room):
    """The end of an earlier attempt's task leaves the attempt that runs by now as it is."""
    room.provider.hold("a")
    await room.ask("a", session_id=session(2))
    await room.quiet()
    (job,) = room.room.service._queue.taken()
    earlier = asyncio.ensure_future(asyncio.sleep(0))
    await earlier
    room.room.service._turns._ended(job, earlier)
    reply = await room.ask("b", session_id=session(2))

    assert reply["session_active"]
    assert room.provider.running == ["a"]


async def test_delays_have_a_limit(room, monkeypatch):
    """They double up to LONGEST_DELAY."""
    monkeypatch.setattr(turns, "LONGEST_DELAY", 0.0015)
    room.provider.replies["a"] = [BUSY]
    await room.ask("a")
    await room.quiet()

    told = [frame["data"].get("delay_s") for frame in room.frames]
    assert told == [None, 0.001, 0.0015, None]


async def test_a_fault_in_a_listener_ends_the_request(room):
    """The client hears of an end, with the answer; the conversation goes on."""

    def fail(data):
        raise ValueError(data["request_id"])

    room.room.site.hub.listen("completion:result", fail)
    with room.room.overlooked():  # a traceback is read from the sources
        await room.ask("a", session_id=session(2))
        await room.quiet()

    found = room.frame("error", "a")
    assert (found["code"], found["error"]) == ("handler_failed", "ValueError: a")
    assert found["result"]["response"]["result"] == "a"


async def test_a_fault_after_the_end_is_only_logged(room):
    """One that hits when the client was told already changes nothing."""

    def fail(_data):
        raise ValueError

    room.room.site.hub.listen("completion:error", fail)
    room.provider.replies["a"] = [{"error": "no", "code": "cli_failed"}]
    with room.room.overlooked():  # a traceback is read from the sources
        await room.ask("a", session_id=session(2))
        await room.ask("b", session_id=session(2))
        await room.quiet()

    assert room.told("error", "result") == [("error", "a"), ("result", "b")]
