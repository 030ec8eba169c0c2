"""Who is active: the two answers to `conversation:active`, and the locks in memory."""

from __future__ import annotations

import pytest

from ksi_daemon.conversation import locks
from tests.rooms import SIDES
from tests.talks import lay, lines, said, talks


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room without any log."""
    async with talks(request.param, tmp_path) as made:
        yield made


def done(at, session, response, **more):
    """A completion on the bus."""
    result = {"session_id": session, "response": response, **more}
    return said("COMPLETION_RESULT", at, client_id="coder", result=result)


async def test_active_has_two_answers(room):
    """This service's and the lock service's, in this order, also without a log."""
    assert await room.ask("active") == [
        {"active_sessions": []},
        {"active_count": 0, "active_conversations": []},
    ]


async def test_active_reads_the_end_of_the_bus(room):
    """By session, from the newest line on; what was active last comes first."""
    lay(
        room.root,
        message_bus=[
            done(0, "s1", "old", model="opus"),
            done(1, "s2", "one", model="sonnet"),
            b"\xff broken",
            said("NOTE", 2),
            done(3, "s1", "new"),
        ],
    )
    found, _ = await room.ask("active")

    assert (found["total_active"], found["scanned_lines"]) == (2, 6)
    assert found["active_sessions"] == [
        {
            "session_id": "s1",
            "last_activity": "2025-07-12T10:00:03Z",
            "client_id": "coder",
            "message_count": 2,
            "last_response": "new",
            "model": "unknown",
        },
        {
            "session_id": "s2",
            "last_activity": "2025-07-12T10:00:01Z",
            "client_id": "coder",
            "message_count": 1,
            "last_response": "one",
            "model": "sonnet",
        },
    ]


@pytest.mark.parametrize(
    ("data", "sessions", "scanned"),
    [
        ({"max_lines": 1}, [], 1),
        ({"max_lines": 2}, ["new"], 2),
        ({"max_lines": 0}, [], 0),
        ({"max_age_hours": 1}, [], 4),
        ({"max_age_hours": 7.12}, ["new", "naive"], 4),
        ({"max_age_hours": 48}, ["new", "naive", "old"], 4),
    ],
)
async def test_how_far_active_looks(room, data, sessions, scanned):
    """So many pieces, of which the last is empty; what is too old or has no time does not count."""
    lay(
        room.root,
        message_bus=[
            done("2025-07-11T10:00:00Z", "old", "x"),
            done("2025-07-12T10:00:00", "naive", "x"),
            done("2025-07-12T10:00:01Z", "new", "x"),
        ],
    )
    found, _ = await room.ask("active", **data)

    assert [one["session_id"] for one in found["active_sessions"]] == sessions
    assert found["scanned_lines"] == scanned


async def test_active_reads_no_more_than_it_must(room):
    """Two hundred bytes for each line that is asked for; half a line at the cut costs itself."""
    lay(room.root, message_bus=lines(*(done(0, f"s{number}", "x" * 300) for number in range(50))))
    found, _ = await room.ask("active", max_lines=10)

    assert 0 < found["total_active"] <= 5


@pytest.mark.parametrize(
    "wrong", [{"max_lines": "1"}, {"max_lines": 10**9}, {"max_lines": -1}, {"max_age_hours": "1"}]
)
async def test_a_wrong_parameter_is_an_answer_too(room, wrong):
    """There are two answers, whatever is asked."""
    found = await room.ask("active", **wrong)

    assert (len(found), found[0]["code"]) == (2, "invalid_parameter")


async def test_odd_records_of_the_bus_cost_only_themselves(room):
    """No stamp, no session, a session that is no text."""
    lay(
        room.root,
        message_bus=[
            said("COMPLETION_RESULT", None, result={"session_id": "none"}),
            said("COMPLETION_RESULT", "soon", result={"session_id": "none"}),
            done(0, None, "x"),
            done(1, 5, {"a": 1}),
            said("COMPLETION_RESULT", 2, result=[1]),
        ],
    )
    found, _ = await room.ask("active")

    assert [(one["session_id"], one["last_response"]) for one in found["active_sessions"]] == [(5, {"a": 1})]


async def acquire(room, request, conversation, **more):
    """Ask for a lock."""
    return await room.ask("acquire_lock", request_id=request, conversation_id=conversation, **more)


async def test_a_lock_goes_from_one_to_the_next(room):
    """The others wait in the order in which they came; asking again changes nothing."""
    first = await acquire(room, "one", "c", metadata={"why": "turn"})
    second = await acquire(room, "two", "c")
    third = await acquire(room, "three", "c")
    again = await acquire(room, "one", "c")
    status = await room.ask("lock_status", conversation_id="c")
    active = (await room.ask("active"))[1]
    left = await room.ask("release_lock", request_id="two")
    released = await room.ask("release_lock", request_id="one")
    last = await room.ask("release_lock", request_id="three")

    assert first == again == {"status": "acquired", "conversation_id": "c", "request_id": "one"}
    assert (second["status"], second["position"], second["holder"]) == ("queued", 1, "one")
    assert third["position"] == 2
    assert (status["locked"], status["holder"], status["queue"]) == (True, "one", ["two", "three"])
    assert (status["metadata"], status["locked_at"][:17]) == ({"why": "turn"}, "2025-07-12T17:06:")
    assert (active["active_count"], active["active_conversations"][0]["holder"]) == (1, "one")
    assert (left["status"], left["next_request"]) == ("dequeued", None)
    assert (released["status"], released["next_request"]) == ("released", "three")
    assert (last["status"], last["next_request"]) == ("released", None)
    assert await room.ask("lock_status", conversation_id="c") == {
        "conversation_id": "c",
        "locked": False,
        "forks": [],
    }


async def test_a_request_has_one_lock_at_a_time(room):
    """Asking for another conversation gives the first one up."""
    await acquire(room, "one", "c")
    await acquire(room, "two", "c")
    await acquire(room, "one", "d")
    every = await room.ask("lock_status")

    assert {name: lock["holder"] for name, lock in every["conversations"].items()} == {"c": "two", "d": "one"}
    assert every["active_count"] == 2


async def test_forks_are_noted(room):
    """They are shown with the conversation in which the answer was expected."""
    names = {"request_id": "one", "expected_conversation_id": "c", "actual_conversation_id": "d"}
    found = await room.ask("fork_detected", **names)
    status = await room.ask("lock_status", conversation_id="c")

    assert found == {"status": "fork_recorded", **names}
    assert status["forks"][0]["actual_conversation_id"] == "d"
    assert len((await room.ask("lock_status"))["forks"]) == 1


async def test_wrong_requests_for_locks(room, monkeypatch):
    """Names are needed, unknown ones told, and the number of requests is bounded."""
    monkeypatch.setattr(locks, "MOST", 1)
    missing = await room.ask("acquire_lock", request_id="one")
    unknown = await room.ask("release_lock", request_id="one")
    await acquire(room, "one", "c")
    full = await acquire(room, "two", "c")

    assert (missing["error"], missing["code"]) == ("conversation_id required", "missing_parameter")
    assert (unknown["error"], unknown["code"]) == ("No lock found for request: one", "not_found")
    assert full["code"] == "locks_full"
