"""The stop: by signal, by request, under load, hurried, stuck; what was acknowledged is on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import settings, transport
from ksi_daemon.app import Daemon
from tests.daemon import PATIENCE, Running, Wire, command, environment, running, write_flags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIDES = ("sync", "async")


def publish(n: int, agent: str = "a") -> bytes:
    """A request that appends one record."""
    data = {"agent_id": agent, "event_type": "N", "message": {"n": n}}
    return json.dumps({"event": "message:publish", "data": data, "correlation_id": n}).encode() + b"\n"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "system:shutdown"])
@pytest.mark.parametrize("side", SIDES)
def test_a_stop_under_load_loses_nothing(tmp_path: Path, side: str, how: str) -> None:
    """Whatever was acknowledged is on disk, in order and once; the end is 0 within 5 s, and all are told."""
    write_flags(tmp_path, messaging=side)
    with running(tmp_path) as daemon, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(daemon.wire()) for _ in range(4)]
        sender = threading.Thread(target=flood, args=(wires, 4000))
        readers = [Collector(wire) for wire in wires]
        sender.start()
        readers[0].until(200)
        began = time.monotonic()
        if how == "system:shutdown":
            with daemon.wire() as asking:
                asking.send({"event": "system:shutdown"})
                (reply,) = asking.frames(1)
                assert reply["data"] == {"status": "shutdown_initiated"}
            code = daemon.process.wait(PATIENCE)
        else:
            code = daemon.stop(signal.Signals[how])
        took = time.monotonic() - began
        sender.join()
        records = daemon.bus()
        frames = [reader.finish() for reader in readers]

    assert code == 0, daemon.log()
    assert took < 5
    for number, found in enumerate(frames):
        told = [frame["event"] for frame in found if frame.get("event", "").startswith("system:")]
        good = [frame["correlation_id"] for frame in found if frame.get("event") == "message:publish"]
        refused = {frame["code"] for frame in found if "event" not in frame}
        assert told == ["system:shutdown_notification", "system:shutdown_complete"]
        assert good == list(range(len(good)))
        assert refused <= {"shutting_down"}
        assert [record["n"] for record in records if record["from"] == f"agent{number}"] == good


def flood(wires: list[Wire], count: int) -> None:
    """Each connection pipelines `count` publishes; the daemon may hang up in between."""
    for number, wire in enumerate(wires):
        with contextlib.suppress(OSError):
            wire.send(b"".join(publish(n, f"agent{number}") for n in range(count)))


class Collector:
    """Reads a connection's frames in a thread until the end."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._frames: list[dict[str, Any]] = []
        self._enough = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def until(self, count: int) -> None:
        """Wait until that many have come."""
        with self._enough:
            assert self._enough.wait_for(lambda: len(self._frames) >= count, PATIENCE)

    def finish(self) -> list[dict[str, Any]]:
        """All of them."""
        self._thread.join(PATIENCE)
        return self._frames

    def _read(self) -> None:
        for frame in self._lines():
            with self._enough:
                self._frames.append(frame)
                self._enough.notify_all()

    def _lines(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(ConnectionResetError):
            while (frame := self._wire.frame()) is not None:
                yield frame


def test_requests_read_before_the_stop_are_answered_and_later_ones_refused(tmp_path: Path) -> None:
    """A delayed request that was accepted gets its answer; what is sent afterwards gets `shutting_down`."""
    with running(tmp_path) as daemon, daemon.wire() as wire, daemon.wire() as asking:
        wire.send(
            {"event": "event:emit", "data": {"event": "system:ready", "delay": 0.5}, "correlation_id": 1},
            {"event": "system:health", "correlation_id": 2},
        )
        asking.send({"event": "system:health"}, {"event": "system:shutdown"})
        asking.frames(2)
        (told,) = wire.frames(1)
        assert told["event"] == "system:shutdown_notification"
        wire.send({"event": "system:health", "correlation_id": 3})
        replies = wire.frames(3)
        code = daemon.process.wait(PATIENCE)

    assert replies[0]["data"] == {"status": "ready"}
    assert replies[1]["data"]["status"] == "healthy"
    assert replies[2] == {"error": "daemon is shutting down", "code": "shutting_down"}
    assert code == 0


def test_a_request_that_waits_for_ever_holds_no_stop_up(tmp_path: Path) -> None:
    """An hour of delay is cut off and answered, what was pipelined behind it too, and the exit code is 0."""
    with running(tmp_path) as daemon, daemon.wire() as wire:
        wire.send({"event": "event:emit", "data": {"event": "system:ready", "delay": 3600}})
        wire.send({"event": "system:health"})
        daemon.ask("system:health")
        began = time.monotonic()
        code = daemon.stop()
        took = time.monotonic() - began
        frames = wire.rest()

    assert frames[1]["data"] == {"error": "daemon is shutting down", "code": "shutting_down"}
    assert frames[2]["data"]["status"] == "healthy"
    assert [frame["event"] for frame in frames[::3]] == [
        "system:shutdown_notification",
        "system:shutdown_complete",
    ]
    assert (code, took < 5) == (0, True)


@pytest.mark.parametrize("side", SIDES)
def test_a_second_signal_ends_at_once_and_tears_nothing(tmp_path: Path, side: str) -> None:
    """It does not wait for a request's delay; the log holds whole lines and every acknowledged record."""
    write_flags(tmp_path, messaging=side)
    with running(tmp_path) as daemon, daemon.wire() as slow, daemon.wire() as wire:
        slow.send({"event": "event:emit", "data": {"event": "system:ready", "delay": 3600}})
        wire.send(b"".join(publish(n) for n in range(500)))
        collector = Collector(wire)
        collector.until(50)
        daemon.process.send_signal(signal.SIGTERM)
        (told,) = slow.frames(1)
        assert told["event"] == "system:shutdown_notification"
        began = time.monotonic()
        code = daemon.stop()
        took = time.monotonic() - began
        frames = collector.finish()
        records = daemon.bus()

    good = [frame["correlation_id"] for frame in frames if frame.get("event") == "message:publish"]
    assert took < 1.5
    assert code == 1
    assert [record["n"] for record in records][: len(good)] == good


def test_a_stop_during_the_start_is_a_stop(tmp_path: Path) -> None:
    """At whatever moment of its start the signal comes, it ends, cleanly or by the signal's default."""
    log = tmp_path / "var/logs/daemon/tool_usage.jsonl"
    log.parent.mkdir(parents=True)
    log.write_bytes(b'{"timestamp": "2025-07-12T20:00:00Z"}\n' * 20_000)
    codes = []
    for delay in (0.05, 0.2, 0.4, 0.45, 0.5, 0.55, 0.6):
        with running(tmp_path, ready=False) as daemon:
            time.sleep(delay)  # the moment is what is varied
            codes.append(daemon.stop())
            assert "Traceback" not in daemon.log()

    assert set(codes) <= {0, -signal.SIGTERM}


def test_a_log_reader_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    """With standard error a full pipe the daemon serves and stops as ever."""
    write_flags(tmp_path)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    child = subprocess.Popen(command("run", "--root", str(tmp_path)), stderr=writing, env=environment())
    os.close(writing)
    daemon = Running(tmp_path, child, {})
    try:
        daemon.log_path.touch()
        daemon.wait_ready()
        for _ in range(20):
            daemon.ask("nope:nope")
        began = time.monotonic()
        code = daemon.stop()
        took = time.monotonic() - began
    finally:
        child.kill()
        child.wait()
        os.close(reading)

    assert (code, took < 5) == (0, True)


def in_process(root: Path) -> tuple[Daemon, Callable[[], Any]]:
    """A daemon for this test's own loop, with short limits, and what serves it."""
    write_flags(root)
    found = settings.Settings(root=root, stop_timeout=0.5, measure_loop=True)
    daemon = Daemon(found)

    async def serve() -> bool:
        with transport.bind(found.socket_path) as bound:
            return await daemon.serve(bound)

    return daemon, serve


async def hang(reached: asyncio.Event) -> None:
    """Never come back."""
    reached.set()
    await asyncio.Event().wait()


async def test_a_start_that_hangs_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop during the start does not wait for it, and nothing is left to lose."""
    daemon, serve = in_process(tmp_path)
    reached = asyncio.Event()
    monkeypatch.setattr(daemon._services[0], "start", lambda: hang(reached))
    serving = asyncio.create_task(serve())
    await reached.wait()

    daemon.stop()

    assert await asyncio.wait_for(serving, 5)


async def test_a_side_that_cannot_be_closed_makes_the_stop_unclean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs in the last flush holds the end up for the limit only, and the result says so."""
    daemon, serve = in_process(tmp_path)
    reached = asyncio.Event()
    monkeypatch.setattr(daemon._switches["messaging"], "close", lambda: hang(reached))
    serving = asyncio.create_task(serve())
    while not daemon._server._listener:
        await asyncio.sleep(0.01)

    daemon.stop()

    assert not await asyncio.wait_for(serving, 5)
    assert reached.is_set()


@pytest.mark.parametrize(("setting", "measured"), [("true", True), ("false", False)])
def test_the_loop_stall_is_measured_when_asked_for(tmp_path: Path, setting: str, measured: bool) -> None:
    """`system:loop` gives milliseconds since the last question, and the number of connections."""
    with running(tmp_path, KSI_MEASURE_LOOP=setting) as daemon:
        found = daemon.ask("system:loop")
        code = daemon.stop()

    assert found["measured"] is measured
    if measured:
        assert found["loop_stall_max_ms"] >= found["loop_stall_p99_ms"] >= 0
        assert found["connections"] == 1
    assert code == 0
