"""What an attack on the claude command, the queue and the switch found."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any, Protocol

import pytest

from ksi_daemon import family, settings
from ksi_daemon.area import Area
from ksi_daemon.claude_cli import AREA
from ksi_daemon.conductor import Conductor
from ksi_daemon.flags import Stage
from ksi_daemon.site import Site
from ksi_daemon.switch import Switch
from ksi_daemon.watch import FlagsWatch
from tests.daemon import PATIENCE, running, write_flags
from tests.rooms import room
from tests.standin import place

SYNC, ASYNC = Stage.SYNC, Stage.ASYNC


class Shelf(Protocol):
    """A contract with one call."""

    async def put(self, item: int) -> bool:
        """Whether the side was open when the call ended."""


class Plain:
    """The control."""

    def __init__(self, _site):
        pass

    def open(self):
        """Nothing to open."""

    def close(self):
        """Nothing to close."""

    def put(self, _item):
        """Done at once."""
        return True


class Slow:
    """The candidate: its calls end when `go` is set, its close when `shut` is; a close ends them, too."""

    def __init__(self, _site):
        self.go, self.shut = asyncio.Event(), asyncio.Event()
        self.shut.set()
        self.is_open = False
        self.closing = asyncio.Event()
        self.fault: Exception | None = None

    async def open(self):
        """Open, or not."""
        if self.fault is not None:
            raise self.fault
        self.is_open = True

    async def close(self):
        """Closed from the first moment on, and over when `shut` is set."""
        self.is_open = False
        self.go.set()
        self.closing.set()
        await self.shut.wait()

    async def put(self, _item):
        """Done when `go` is set."""
        await self.go.wait()
        return self.is_open


@pytest.fixture
async def switch(tmp_path):
    """A component of the kind `process`, at async, and its candidate."""
    area = Area("claude_cli", "a toy", "process", 9, Shelf, Plain, Slow, AREA.service, AREA.exercise)
    made: Any = Switch(area, Site("claude_cli", settings.load(tmp_path)))
    await made.open(ASYNC)
    return made, made._sides[True]


async def test_a_side_that_comes_back_in_the_middle_of_its_close_is_opened_again(switch):
    """Else it would be in force and closed, and refuse every call until the next flip."""
    made, slow = switch
    slow.shut.clear()
    call = asyncio.create_task(made.put(1))
    await asyncio.sleep(0)
    await made.flip(SYNC)
    slow.go.set()
    await call
    await asyncio.wait_for(slow.closing.wait(), PATIENCE)
    back = asyncio.create_task(made.flip(ASYNC))
    await asyncio.sleep(0)
    slow.shut.set()
    await back

    assert await made.put(2)
    await made.close()


async def test_a_close_ends_the_calls_of_a_side_that_retires(switch):
    """A stop waits for no call, whichever side it is on."""
    made, _ = switch
    call = asyncio.create_task(made.put(1))
    await asyncio.sleep(0)
    await made.flip(SYNC)

    await asyncio.wait_for(made.close(), PATIENCE)
    assert not await call


async def test_a_fault_in_a_flip_is_shown_as_a_refusal(tmp_path):
    """Such as a thread that cannot be started; the follower of a component must not die of it in silence."""
    write_flags(tmp_path)
    config = settings.load(tmp_path)
    site = Site("claude_cli", config)
    made: Any = Switch(AREA, site)
    watch = FlagsWatch(config.flags_path, config.migrate_dir)
    conductor = Conductor({"claude_cli": made}, {"claude_cli": site}, watch, config)

    async def fail():
        raise RuntimeError("can't start new thread")

    made._sides[True].open = fail
    await conductor.start()
    try:
        write_flags(tmp_path, claude_cli="async")
        watch.nudge()
        async with asyncio.timeout(PATIENCE):
            while (row := await _row(conductor))["desired"] != "async" or not row["refused"]:
                await asyncio.sleep(0.005)
    finally:
        await conductor.stop()
        await made.close()

    assert (row["refused"], row["effective"]) == ("RuntimeError: can't start new thread", "sync")


async def _row(conductor):
    status = await conductor.status({}, None)
    return next(row for row in status["components"] if row["name"] == "claude_cli")


async def test_an_answer_is_not_lost_to_a_look_at_old_processes(tmp_path, monkeypatch):
    """The sync side reaps what earlier turns left; that it cannot see them is no fault of this turn."""

    def fail():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(family, "reap_adopted", fail)
    async with room(AREA, "sync", tmp_path) as made:
        reply = await made.send("claude_cli:turn", prompt="hello")

    assert reply["status"] == "completed"


def processes_of(root):
    """The pids of all processes of this root's turns."""
    mark = b"KSI_TURN=" + hashlib.sha256(os.fsencode(root)).hexdigest()[:12].encode()
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            found += [int(one.name)] if mark in (one / "environ").read_bytes() else []
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_two_signals_after_a_rollback_leave_no_turn_behind(tmp_path):
    """Not even one that ignores SIGTERM, on the side that retires while the stop has to be quick."""
    write_flags(tmp_path, claude_cli="async")
    program = place(tmp_path / "claude", "2.1", "[[stubborn]]")
    with running(tmp_path, KSI_CLAUDE_BIN=str(program)) as daemon, daemon.wire() as wire:
        wire.send({"event": "claude_cli:turn", "data": {"prompt": "[[tool 60]]"}})
        _until(lambda: len(processes_of(tmp_path)) > 1)
        write_flags(tmp_path, claude_cli="sync")
        _until(lambda: "sync" in _stages(daemon))
        daemon.process.send_signal(signal.SIGTERM)
        _until(lambda: "stopping" in daemon.log())
        daemon.stop()
        left = processes_of(tmp_path)
        for pid in left:
            os.kill(pid, signal.SIGKILL)

    assert left == []


def _stages(daemon):
    components = daemon.ask("migration:status")["components"]
    return [row["effective"] for row in components if row["name"] == "claude_cli"]


def _until(holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
