"""One connection: requests taken up in order and within limits, replies in the same order."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving import Slow, echo, numbered, serving, settle

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.router import Client


async def test_requests_of_one_connection_run_one_after_another(tmp_path: Path) -> None:
    """A pipelined request begins when the one before it is answered."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}) as served:
        caller = await served.connect()

        caller.send(*numbered("slow", 5))
        await slow.until_begun(1)
        await settle()
        began = list(slow.begun)
        slow.gate.set()
        replies = await caller.frames(5)

    assert began == [0]
    assert slow.ended == [0, 1, 2, 3, 4]
    assert [reply["correlation_id"] for reply in replies] == [0, 1, 2, 3, 4]


async def test_overlapping_events_run_together_and_are_answered_in_order(tmp_path: Path) -> None:
    """Events that declare it begin at once; the first reply is the first request's, though it ends last."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}, overlap="slow") as served:
        caller = await served.connect()

        caller.send(*numbered("slow", 5))
        await slow.until_begun(5)
        slow.gate.set()
        replies = await caller.frames(5)

    assert slow.ended == [4, 3, 2, 1, 0]
    assert [reply["data"] for reply in replies] == [0, 1, 2, 3, 4]


async def test_other_events_wait_for_all_overlapping_ones(tmp_path: Path) -> None:
    """An event that does not overlap begins after all earlier replies, and holds up all later ones."""
    slow = Slow()

    async def count(_data: object, _client: object) -> Any:
        return {"ended": len(slow.ended), "begun": len(slow.begun)}

    async with serving(tmp_path, {"slow": slow, "count": count}, overlap="slow") as served:
        caller = await served.connect()

        caller.send(*numbered("slow", 3), {"event": "count"}, *numbered("slow", 2))
        await slow.until_begun(3)
        await settle()
        began = len(slow.begun)
        slow.gate.set()
        replies = await caller.frames(6)

    assert began == 3
    assert replies[3]["data"] == {"ended": 3, "begun": 3}
    assert [reply["event"] for reply in replies] == ["slow", "slow", "slow", "count", "slow", "slow"]


async def test_connections_run_side_by_side(tmp_path: Path) -> None:
    """One client's slow request holds up nobody else."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow, "echo": echo}) as served:
        first, second = await served.connect(), await served.connect()
        first.send({"event": "slow"})
        await slow.until_begun(1)

        found = await second.ask("echo", x=1)
        slow.gate.set()

    assert found == {"x": 1}


async def test_a_failing_handler_costs_only_its_own_reply(tmp_path: Path) -> None:
    """An exception becomes a reply with its real text; the connection goes on."""

    async def fail(_data: object, _client: object) -> Any:
        raise KeyError("x")

    async with serving(tmp_path, {"fail": fail, "echo": echo}, overlap="fail") as served:
        caller = await served.connect()
        caller.send({"event": "fail", "correlation_id": "c"}, {"event": "echo"})

        failed, fine = await caller.frames(2)

    assert failed["data"] == {"status": "error", "error": "KeyError: 'x'", "code": "handler_failed"}
    assert failed["correlation_id"] == "c"
    assert fine["data"] == {}


async def test_a_result_that_is_not_json_is_an_error_reply(tmp_path: Path) -> None:
    """Where the original let the client wait for ever, it is told, in shape 2."""

    async def bad(_data: object, _client: object) -> Any:
        return object()

    async with serving(tmp_path, {"bad": bad}) as served:
        caller = await served.connect()
        caller.send({"event": "bad", "correlation_id": [1]})

        reply = await caller.frame()

    assert reply["error"].startswith("not representable as JSON: ")
    assert (reply["event"], reply["correlation_id"], reply["code"]) == ("bad", [1], "unserialisable")
    assert "data" not in reply


BAD = {
    "blank": (b"\n", "invalid_json"),
    "not JSON": (b"{oops}\n", "invalid_json"),
    "array": (b"[]\n", "invalid_request"),
    "no event": (b"{}\n", "invalid_request"),
    "deep": (b"[" * 100_000 + b"\n", "invalid_json"),
}


@pytest.mark.parametrize(("line", "code"), BAD.values(), ids=BAD.keys())
async def test_a_line_that_is_no_request_gets_shape_1(tmp_path: Path, line: bytes, code: str) -> None:
    """It is answered in its place among the replies with error and code alone, and the connection lives."""
    async with serving(tmp_path, {"echo": echo}) as served:
        caller = await served.connect()
        caller.send({"event": "echo"}, line, {"event": "echo"})

        before, bad, after = await caller.frames(3)

    assert (before["event"], after["event"]) == ("echo", "echo")
    assert (list(bad), bad["code"]) == (["error", "code"], code)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"event": "echo", "data": None}, "data must be an object, not null"),
        ({"event": "echo", "data": [1]}, "data must be an object, not an array"),
        ({"event": "echo", "data": "x"}, "data must be an object, not a string"),
        ({"event": 7, "data": {}}, "event must be a string, not a number"),
        ({"event": {"a": 1}}, "event must be a string, not an object"),
    ],
)
async def test_a_request_of_wrong_types_gets_shape_2(
    tmp_path: Path, request_: dict[str, Any], text: str
) -> None:
    """Event and correlation id are repeated, and the text says which type was wrong."""
    async with serving(tmp_path, {"echo": echo}) as served:
        caller = await served.connect()
        caller.send({**request_, "correlation_id": "c"})

        reply = await caller.frame()

    assert list(reply) == ["event", "error", "correlation_id", "timestamp", "code"]
    assert (reply["event"], reply["error"], reply["correlation_id"]) == (request_["event"], text, "c")


async def test_unknown_keys_and_hostile_strings_come_back_as_they_were(tmp_path: Path) -> None:
    """NUL, U+2028, ANSI and newlines in strings survive, one reply a line; unknown keys are ignored."""
    data = {"s": "\0\u2028\u2029\x1b[31m\n\r\x85😀", "n": 2**64 - 1}
    async with serving(tmp_path, {"echo": echo}) as served:
        caller = await served.connect()
        caller.send({"event": "echo", "data": data, "health": False})

        line = await caller.reader.readline()

    assert json.loads(line)["data"] == data


async def test_a_last_line_without_newline_is_answered_before_the_end(tmp_path: Path) -> None:
    """After a half-close everything that was sent is answered, then the daemon hangs up."""
    async with serving(tmp_path, {"echo": echo}) as served:
        caller = await served.connect()
        caller.send({"event": "echo", "data": {"n": 1}}, b'{"event": "echo", "data": {"n": 2}}')
        caller.writer.write_eof()

        replies = await caller.rest()

    assert [reply["data"]["n"] for reply in replies] == [1, 2]


async def test_a_half_close_waits_for_what_is_under_way(tmp_path: Path) -> None:
    """A slow request's reply still comes after the client's half-close."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}) as served:
        caller = await served.connect()
        caller.send(*numbered("slow", 3))
        caller.writer.write_eof()
        await slow.until_begun(1)
        await settle()
        slow.gate.set()

        replies = await caller.rest()
        await served.until_connections(0)

    assert [reply["data"] for reply in replies] == [0, 1, 2]


async def test_what_a_vanished_client_sent_whole_is_done(tmp_path: Path) -> None:
    """A reset in the middle of the replies loses no request that had arrived, and frees the connection."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}) as served:
        caller = await served.connect()
        caller.send(*numbered("slow", 5))
        await slow.until_begun(1)
        caller.writer.transport.abort()
        slow.gate.set()

        await served.until_connections(0)

    assert slow.ended == [0, 1, 2, 3, 4]


async def test_a_handler_hears_of_the_end_of_its_connection(tmp_path: Path) -> None:
    """What was asked for with `on_close` is called once; for a client that is gone already, soon."""
    calls: list[str] = []
    kept: list[Client] = []

    async def keep(_data: object, client: Client) -> Any:
        client.on_close(lambda: calls.append("gone"))
        kept.append(client)
        return "kept"

    async with serving(tmp_path, {"keep": keep}) as served:
        caller = await served.connect()
        await caller.ask("keep")
        caller.writer.close()
        await served.until_connections(0)
        kept[0].on_close(lambda: calls.append("late"))
        sent = kept[0].send(b"x\n")
        await kept[0].writable()
        await settle()

    assert calls == ["gone", "late"]
    assert not sent


async def test_a_hundred_thousand_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """They come back complete and in order while another client's ping is answered in between."""
    count = 100_000
    async with serving(tmp_path, {"echo": echo}, overlap="echo") as served:
        caller, other = await served.connect(), await served.connect()
        caller.send(b"".join(b'{"event":"echo","correlation_id":%d}\n' % n for n in range(count)))
        caller.writer.write_eof()
        reading = asyncio.create_task(caller.reader.read())
        pings = 0
        while not reading.done():
            await other.ask("echo")
            pings += 1
        lines = (await reading).splitlines()

    assert [line.partition(b'"correlation_id":')[2].partition(b",")[0] for line in lines] == [
        b"%d" % n for n in range(count)
    ]
    assert pings > 10


async def test_a_stop_answers_what_was_read_and_refuses_the_rest(tmp_path: Path) -> None:
    """A line read whole before the stop is served; one that is finished after it gets `shutting_down`."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}) as served:
        caller = await served.connect()
        caller.send(*numbered("slow", 3), b'{"event": "slow", "corr')
        await slow.until_begun(1)
        await settle()
        draining = asyncio.create_task(served.server.drain(5.0))
        await settle()
        caller.send(b'elation_id": 1}\n')
        await settle()
        slow.gate.set()

        replies = await caller.frames(4)
        clean = await draining

    assert [reply.get("data") for reply in replies] == [0, 1, 2, None]
    assert replies[3] == {"error": "daemon is shutting down", "code": "shutting_down"}
    assert clean


async def test_a_stop_cuts_off_what_does_not_end(tmp_path: Path) -> None:
    """A request still running at the deadline is cancelled and told so, and the drain was not clean."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}) as served:
        caller = await served.connect()
        caller.send({"event": "slow", "correlation_id": 1})
        await slow.until_begun(1)

        clean = await served.server.drain(0.05)
        reply = await caller.frame()

    assert not clean
    assert (reply["error"], reply["code"], reply["correlation_id"]) == (
        "daemon is shutting down",
        "shutting_down",
        1,
    )
