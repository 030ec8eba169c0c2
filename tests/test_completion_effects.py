"""What an answer sets going on both sides: events in its text, logs that refuse, a stop in the middle."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from ksi_daemon.completion import turns
from ksi_daemon.errors import ShuttingDown
from ksi_daemon.router import Event
from tests.completions import BUSY, answer, completions, lines, log_of, session
from tests.faults import fill, small_disk
from tests.rooms import SIDES


@pytest.fixture(params=SIDES)
def side(request):
    """For tests that open the room themselves."""
    return request.param


@pytest.fixture
async def room(side, tmp_path):
    """The room on either side, with a provider that does what a test tells it."""
    async with completions(side, tmp_path) as made:
        yield made


def event(name, handler):
    """An event of a test."""
    return Event(name, handler, "of a test")


def trace(room):
    """Everything that happens in one list: frames, notes, and the sizes of both logs at each."""
    seen: list[tuple] = []

    async def note(data, _client):
        seen.append(("note", data["n"], sizes(room)))

    room._router._direct["notes:add"] = (event("notes:add", note),)
    for kind in ("progress", "result", "error", "cancelled"):
        room.room.site.hub.listen(
            f"completion:{kind}", lambda _data, kind=kind: seen.append((kind, sizes(room)))
        )
    return seen


def sizes(room):
    """Lines of session 1 and of usage."""
    with room.room.overlooked():
        return len(lines(log_of(room.room.site.settings.root, 1))), len(room.room.lines())


# events in the text


async def test_events_in_the_text_are_emitted_in_order(room):
    """After the session's line and before the record of usage and the frame; each is marked."""
    first, second = (f'{{"event": "notes:add", "data": {{"n": {n}}}}}' for n in (1, 2))
    text = f"First {first}, then\n```json\n{second}\n```"
    room.provider.replies["a"] = [answer(text)]
    seen = trace(room)
    await room.ask("a")
    await room.quiet()

    assert seen == [
        ("progress", (0, 0)),
        ("note", 1, (1, 0)),
        ("note", 2, (1, 0)),
        ("result", (1, 1)),
    ]


async def test_emitted_events_say_where_they_come_from(room):
    """`_extracted_from_response`, and `_agent_id` when there is an agent; the answer cannot forge them."""
    text = '{"event": "notes:add", "data": {"n": 1, "_agent_id": "boss", "_extracted_from_response": 0}}'
    room.provider.replies["a"] = [answer(text)]
    await room.ask("a", agent_id="coder")
    await room.quiet()

    assert room.notes == [{"n": 1, "_agent_id": "coder", "_extracted_from_response": True}]


async def test_an_event_without_an_agent(room):
    """Then no agent is named; data may be missing; an unknown event costs nothing but a line in the log."""
    text = '{"event": "nobody:knows"} {"event": "notes:add"}'
    room.provider.replies["a"] = [answer(text)]
    await room.ask("a")
    await room.quiet()

    assert room.notes == [{"_extracted_from_response": True}]
    assert room.told("result") == [("result", "a")]


async def test_an_answer_may_ask_for_more(room):
    """`completion:async` in a text queues a request like any other, behind its own conversation."""
    text = '{"event": "completion:async", "data": {"prompt": "b", "request_id": "b", "session_id": "%s"}}'
    room.provider.replies["a"] = [answer(text % session(1))]
    await room.ask("a", session_id=session(1))
    await room.quiet()

    assert room.told("result") == [("result", "a"), ("result", "b")]


async def test_a_handler_that_hangs_holds_up_nobody(room):
    """After KSI_CALL_TIMEOUT the request goes on; the stop ends what is left."""
    ended = []

    async def hang(_data, _client):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("hang")

    room.change(call_timeout=0.02)
    room._router.add((event("notes:hang", hang),))
    room.provider.replies["a"] = [answer('{"event": "notes:hang"}')]
    await room.ask("a")
    await room.quiet()
    told = room.told("result")
    await room.room.service.stop()

    assert (told, ended) == ([("result", "a")], ["hang"])


async def test_a_text_that_is_none_has_no_events(room):
    """A `result` that is missing, or no string."""
    for result in (None, {"event": "notes:add"}):
        room.provider.replies["a"] = [answer(result)]
        await room.ask("a")
        await room.quiet()

    assert (room.notes, room.told("result")) == ([], [("result", "a")] * 2)


async def test_a_large_text_lets_others_run(room):
    """A scan of many objects pauses again and again."""
    text = f'{{"k": [{",".join("1" * 20_000)}]}} {{"event": "notes:add"}}'
    room.provider.replies["a"] = [answer(text)]
    await room.ask("a")
    turns_of_others = 0
    while not room.told("result"):
        await asyncio.sleep(0)
        turns_of_others += 1

    assert len(room.notes) == 1
    assert turns_of_others > 20


# logs that refuse


async def test_a_session_log_that_cannot_be_written(room, tmp_path):
    """The client gets the error with the answer in it; nothing is emitted, remembered or counted."""
    log_of(tmp_path, 1).mkdir(parents=True)
    room.provider.replies["a"] = [answer('{"event": "notes:add"}')]
    await room.ask("a", agent_id="coder")
    await room.quiet()
    log_of(tmp_path, 1).rmdir()
    await room.ask("b")
    await room.quiet()

    found = room.frame("error", "a")
    assert {key: found[key] for key in ("code", "component", "errno", "retryable")} == {
        "code": "io_error",
        "component": "completion",
        "errno": "EISDIR",
        "retryable": False,
    }
    assert found["result"]["response"]["result"] == '{"event": "notes:add"}'
    assert found["result"]["ksi"]["request_id"] == "a"
    assert (room.notes, room.room.service.memory()["agent_sessions"]) == ([], {})
    assert [used["request_id"] for used in room.room.lines()] == ["b"]
    assert [line["ksi"]["request_id"] for line in lines(log_of(tmp_path, 1))] == ["b"]


async def test_a_usage_log_that_cannot_be_written(room):
    """The session's line is there; the client gets the error with the answer in it; no total counts it."""
    room.room.path.rename(room.room.path.with_suffix(".1"))
    room.room.path.mkdir()
    await room.ask("a", agent_id="coder")
    await room.quiet()
    room.room.path.rmdir()

    found = room.frame("error", "a")
    assert (found["code"], found["errno"]) == ("io_error", "EISDIR")
    assert found["result"]["response"]["result"] == "a"
    assert sizes(room) == (1, 0)
    memory = room.room.service.memory()
    assert (memory["agents"], memory["queue"]["failed"], memory["queue"]["completed"]) == ({}, 1, 0)


async def test_a_full_disk(side, tmp_path):
    """ENOSPC at the session's line: nothing of it stays, and the next answer is logged."""
    with small_disk(tmp_path) as disk:
        async with completions(side, disk) as room:
            await room.ask("a")
            await room.quiet()
            filler = fill(disk)
            room.provider.replies["b"] = [answer("x" * 100_000)]
            await room.ask("b")
            await room.quiet()
            filler.unlink()
            await room.ask("c")
            await room.quiet()
            logged = [line["ksi"]["request_id"] for line in lines(log_of(disk, 1))]
            used = [line["request_id"] for line in room.room.lines()]

    found = room.frame("error", "b")
    assert (found["code"], found["errno"], found["retryable"]) == ("io_error", "ENOSPC", True)
    assert found["result"]["response"]["result"] == "x" * 100_000
    assert (logged, used) == (["a", "c"], ["a", "c"])
    assert len(room.provider.asked) == 3


async def test_an_answer_that_nothing_can_carry(room):
    """One nested too deeply to be written: an error without it, since the frame could not hold it either."""
    deep: list = []
    for _ in range(300):
        deep = [deep]
    room.provider.replies["a"] = [answer(more=deep)]
    await room.ask("a")
    await room.quiet()

    found = room.frame("error", "a")
    assert (found["code"], "result" in found) == ("unserialisable", False)


# the stop


async def test_a_stop_tells_everybody_an_end(room):
    """Queued, running and retrying ones get `shutting_down`; turns are cancelled; later ones are refused."""
    room.change(claude_retry_backoff=60)
    room.room.service._queue.parallel = 2
    room.provider.hold("a")
    room.provider.replies["r"] = [BUSY]
    for name, kind in (
        ("a", {"session_id": session(2)}),
        ("b", {"session_id": session(2)}),
        ("r", {}),
        ("c", {}),
    ):
        await room.ask(name, **kind)
    while ("result", "c") not in room.told():
        await asyncio.sleep(0.001)
    await room.room.service.stop()
    late = await room.ask("late")

    ends = room.told("error", "result", "cancelled")
    assert ends == [("result", "c"), ("error", "a"), ("error", "b"), ("error", "r")]
    assert room.frame("error", "b") == {
        "request_id": "b",
        "error": "daemon is shutting down",
        "session_id": session(2),
        "code": "shutting_down",
    }
    assert room.provider.cancelled == ["a"]
    assert late == {"error": "daemon is shutting down", "code": "shutting_down"}
    assert not room.room.service._turns._tasks


async def test_a_stop_writes_the_answers_that_have_come(room):
    """A request whose events are still being emitted is finished: on disk, counted, and told."""

    async def hang(_data, _client):
        await asyncio.Event().wait()

    room._router.add((event("notes:hang", hang),))
    room.provider.replies["a"] = [answer('{"event": "notes:hang"}')]
    await room.ask("a")
    while not room.room.service._turns._emitting._tasks:
        await asyncio.sleep(0)
    await room.room.service.stop()

    assert room.told("result", "error") == [("result", "a")]
    assert sizes(room) == (1, 1)


async def test_a_stop_does_not_wait_for_a_dead_disk(room, monkeypatch):
    """A line that may or may not be written: `outcome_unknown` with the answer, and nothing after it."""
    monkeypatch.setattr(turns, "STOP", 0.01)
    real, stuck = room.room.backend.append_session, asyncio.Event()

    async def hang(*args):
        await stuck.wait()
        await real(*args)

    room.room.service._turns._log = type("Stuck", (), {"append_session": staticmethod(hang)})()
    await room.ask("a", agent_id="coder")
    while room.room.service._queue._jobs["a"].status != "recording":
        await asyncio.sleep(0)
    begun = time.monotonic()
    await room.room.service.stop()
    seconds = time.monotonic() - begun
    stuck.set()
    await room.quiet()

    found = room.frame("error", "a")
    assert (found["code"], found["result"]["response"]["result"]) == ("outcome_unknown", "a")
    assert room.told("result", "error") == [("error", "a")]
    assert seconds < 5


@pytest.mark.parametrize("refused", [False, True])
async def test_what_comes_of_a_write_after_the_stop_is_not_told_again(room, monkeypatch, refused):
    """Its client was told `outcome_unknown`; whether the write then succeeds or fails changes nothing."""
    monkeypatch.setattr(turns, "STOP", 0.01)
    stuck = asyncio.Event()

    async def hang(*_args):
        task: Any = asyncio.current_task()
        while not stuck.is_set():
            try:
                await stuck.wait()
            except asyncio.CancelledError:
                task.uncancel()
        if refused:
            raise ShuttingDown

    room.room.service._turns._log = type("Stuck", (), {"append_session": staticmethod(hang)})()
    await room.ask("a")
    while room.room.service._queue._jobs["a"].status != "recording":
        await asyncio.sleep(0)
    await room.room.service.stop()
    stuck.set()
    await room.quiet()

    assert room.told("result", "error") == [("error", "a")]
