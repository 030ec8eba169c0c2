"""What one client can cost: line length, requests in flight, unread output, time for a line."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving import Slow, connections_of, echo, numbered, serving, settle

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_line_of_the_exact_limit_is_accepted(tmp_path: Path) -> None:
    """Exactly `max_line_bytes` is a request; one byte more is an error, and the connection lives."""
    limit = 1024 * 1024
    frame = b'{"event": "echo", "data": {"s": "%s"}}'
    fits = frame % (b"x" * (limit - len(frame) + 2))
    async with serving(tmp_path, {"echo": echo}, max_line_bytes=limit) as served:
        caller = await served.connect()
        caller.send(fits + b"\n", b"y" + fits + b"\n", {"event": "echo"})

        whole, long, after = await caller.frames(3)

    assert len(fits) == limit
    assert len(whole["data"]["s"]) == limit - len(frame) + 2
    assert (list(long), long["code"]) == (["error", "code"], "line_too_long")
    assert after["data"] == {}


async def test_a_line_of_many_mebibytes_is_skipped_as_it_streams(tmp_path: Path) -> None:
    """64 MiB without a newline cost one error, sent before the line ends, and no memory beyond the limit."""
    async with serving(tmp_path, {"echo": echo}, max_line_bytes=100_000) as served:
        caller = await served.connect()
        (connection,) = await connections_of(served)
        most = 0
        for _ in range(64):
            caller.send(b"x" * 2**20)
            await caller.writer.drain()
            most = max(most, len(connection._framing._buffer))
        early = await caller.frame()
        caller.send(b"\n", {"event": "echo"})

        late = await caller.frame()

    assert early["code"] == "line_too_long"
    assert late["data"] == {}
    assert most <= 100_000


@pytest.mark.parametrize("line", [b'{"event": "slow"}\n', b"\n"], ids=["requests", "blank lines"])
async def test_what_waits_behind_a_slow_request_is_bounded(tmp_path: Path, line: bytes) -> None:
    """Beyond the limit the daemon stops reading: a flood stays with its sender, and all are answered."""
    slow, count = Slow(), 5_000
    async with serving(tmp_path, {"slow": slow}, max_in_flight=8, max_line_bytes=20_000) as served:
        caller = await served.connect()
        caller.send({"event": "slow"}, *[line] * count)
        (connection,) = await connections_of(served)
        await slow.until_begun(1)
        await settle()
        held = len(connection._replies)
        paused = not connection._reading
        slow.gate.set()
        replies = await caller.frames(count + 1)

    assert held <= 8
    assert paused
    assert len(replies) == count + 1


async def test_overlapping_requests_in_flight_are_bounded(tmp_path: Path) -> None:
    """No more than `max_in_flight` run at once, however many are pipelined."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}, overlap="slow", max_in_flight=4) as served:
        caller = await served.connect()
        caller.send(*numbered("slow", 10))
        await slow.until_begun(4)
        await settle()
        at_once = len(slow.begun)
        slow.gate.set()

        replies = await caller.frames(10)

    assert at_once == 4
    assert [reply["data"] for reply in replies] == list(range(10))


async def test_a_client_that_never_reads_is_dropped_and_others_live(tmp_path: Path) -> None:
    """One that leaves more than `max_unread_bytes` unread is cut off; memory stays within that."""
    async with serving(tmp_path, {"echo": echo}, max_unread_bytes=1_000_000) as served:
        deaf = await served.connect()
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        (connection,) = await connections_of(served)
        most = 0
        while connection.send(b"y" * 50_000):
            most = max(most, connection._transport.get_write_buffer_size())
        other = await served.connect()
        found = await other.ask("echo")
        await served.until_connections(1)

    assert 900_000 < most <= 1_000_000
    assert found == {}


async def test_a_client_that_reads_slowly_is_only_slowed(tmp_path: Path) -> None:
    """While much is unread no further request is taken up, so a slow reader that pipelines loses nothing."""
    taken = 0

    async def large(_data: object, _client: object) -> Any:
        nonlocal taken
        taken += 1
        return "x" * 100_000

    async with serving(tmp_path, {"large": large}, max_unread_bytes=2_000_000) as served:
        caller = await served.connect()
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        caller.send(*[{"event": "large"}] * 100)
        (connection,) = await connections_of(served)
        while connection._writable.is_set():
            await asyncio.sleep(0.001)
        await settle()
        early = taken
        caller.reader._transport.resume_reading()  # type: ignore[attr-defined]

        replies = await caller.frames(100)

    assert early < 20
    assert {len(reply["data"]) for reply in replies} == {100_000}


async def test_a_request_at_a_byte_a_time_is_given_up(tmp_path: Path) -> None:
    """A line that was begun must be finished within `request_timeout`, however the bytes trickle."""
    async with serving(tmp_path, {"echo": echo}, request_timeout=0.3) as served:
        caller = await served.connect()
        reading = asyncio.create_task(caller.rest())
        for byte in b'{"event": "echo", "data": {"x": "0123456789"}}':
            with contextlib.suppress(BrokenPipeError):  # given up between the question and the byte
                if not reading.done():
                    caller.send(bytes([byte]))
                    await asyncio.sleep(0.02)

        replies = await reading

    assert [reply["code"] for reply in replies] == ["request_too_slow"]
    assert replies[0]["error"] == "a request was not finished within 0.3 s"


async def test_hundreds_of_half_open_clients_are_given_up(tmp_path: Path) -> None:
    """Each keeps a place for `request_timeout` only, and a client that asks is answered all the while."""
    async with serving(tmp_path, {"echo": echo}, request_timeout=0.3) as served:
        other = await served.connect()
        half = [await served.connect() for _ in range(300)]
        for caller in half:
            caller.send(b"{")
        await served.until_connections(301)
        asked = 0
        while served.server.connections() > 1:
            assert await other.ask("echo") == {}
            asked += 1
        last = [await caller.rest() for caller in half]

    assert asked > 10
    assert {reply["code"] for replies in last for reply in replies} == {"request_too_slow"}
    assert {len(replies) for replies in last} == {1}


async def test_an_idle_client_may_stay(tmp_path: Path) -> None:
    """A client that has begun nothing is left alone, before its first request and after it."""
    async with serving(tmp_path, {"echo": echo}, request_timeout=0.1) as served:
        fresh, used = await served.connect(), await served.connect()
        await used.ask("echo")
        await asyncio.sleep(0.4)

        found = await fresh.ask("echo"), await used.ask("echo")

    assert found == ({}, {})


async def test_a_held_up_client_is_not_called_slow(tmp_path: Path) -> None:
    """While the daemon itself does not read, an unfinished line is not the client's fault."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}, request_timeout=0.1, max_in_flight=1) as served:
        caller = await served.connect()
        caller.send(*numbered("slow", 4), b'{"event": "sl')
        await slow.until_begun(1)
        await asyncio.sleep(0.4)
        caller.send(b'ow"}\n')
        slow.gate.set()

        replies = await caller.frames(5)

    assert [reply["event"] for reply in replies] == ["slow"] * 5


async def test_a_refused_client_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    """One that neither finishes its line nor reads its replies does not keep its place."""
    async with serving(tmp_path, {"echo": echo}, request_timeout=0.1) as served:
        caller = await served.connect()
        (connection,) = await connections_of(served)
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        connection.send(b"x" * 4_000_000)
        caller.send(b"{")

        await served.until_connections(0)

    assert connection.closing
