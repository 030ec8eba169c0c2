"""The idle process: its figures, and that it ends with its parent, however that ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ksi_daemon.heartbeat import Stall
from ksi_migrate import idle
from ksi_migrate.idle import IdleLost, idle_heartbeat

ROOT = Path(__file__).parents[1]

PARENT = """
import asyncio, sys
from ksi_migrate.idle import idle_heartbeat

async def main():
    async with idle_heartbeat() as idle:
        print(idle.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def gone(pid: int) -> bool:
    """Whether no live process has this id (a zombie that its adopter has yet to reap counts as gone)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def wait_gone(pid: int) -> bool:
    """Poll for another process's end: it is nobody's child here, so nothing can be waited on."""
    deadline = time.monotonic() + 20
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return gone(pid)


async def test_reports_the_interval_and_begins_the_next() -> None:
    """Each reading covers the time since the last one: its beats are about its milliseconds."""
    async with idle_heartbeat() as child:
        begin = time.monotonic()
        await asyncio.sleep(0.3)
        first = await child.read()
        elapsed_ms = (time.monotonic() - begin) * 1e3
        second = await child.read()

    assert 0.4 * elapsed_ms <= first.beats <= elapsed_ms + 50
    assert 0 < first.p50_ms <= first.p99_ms <= first.max_ms
    assert second.beats < first.beats


async def test_does_not_feel_the_parents_stall() -> None:
    """A parent blocked for 300 ms leaves the idle process's median where it was."""
    async with idle_heartbeat() as child:
        time.sleep(0.3)
        stall = await child.read()

    assert stall.beats > 100
    assert stall.p50_ms < 100


async def test_the_child_ends_with_the_block() -> None:
    """After the block the process is gone and reaped, also when the block raises."""
    seen = []
    with suppress(ZeroDivisionError):
        async with idle_heartbeat() as child:
            seen.append(child.pid)
            raise ZeroDivisionError

    assert [gone(pid) for pid in seen] == [True]
    await child.close()


async def test_a_dead_child_is_named() -> None:
    """Figures of a process that somebody killed are refused, not invented."""
    async with idle_heartbeat() as child:
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(IdleLost, match=rf"pid {child.pid}\) ended by itself; .* measure it again"):
            await child.read()
        with pytest.raises(IdleLost):
            await child.read()


async def test_a_stuck_child_is_named_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process that does not answer in time is refused for good: its answer would come too late."""
    async with idle_heartbeat() as child:
        monkeypatch.setattr(idle, "ANSWER_S", 0.2)  # from here on: the start may take longer
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(IdleLost, match=r"did not answer within 0\.2 s"):
            await child.read()
        with pytest.raises(IdleLost, match="ended by itself"):
            await child.read()

    assert gone(child.pid)


async def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process does not see the end of its stdin; closing waits for it, then kills and reaps it."""
    async with idle_heartbeat() as child:
        monkeypatch.setattr(idle, "ANSWER_S", 0.2)  # from here on: the start may take longer
        os.kill(child.pid, signal.SIGSTOP)

    assert gone(child.pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_when_the_parent_dies(how: signal.Signals) -> None:
    """The child reads the end of its stdin and goes, whatever killed its parent."""
    command = [sys.executable, "-c", PARENT]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.send_signal(how)

    assert wait_gone(pid)


def test_the_protocol_is_a_line_for_a_line() -> None:
    """By hand: each line on stdin is answered with one JSON line on stdout; the end of stdin is exit 0."""
    command = [sys.executable, "-m", "ksi_migrate.idle"]
    ended = subprocess.run(command, input=b"read\nread\n", capture_output=True, cwd=ROOT, check=True)

    stalls = [Stall(**json.loads(line)) for line in ended.stdout.splitlines()]
    assert len(stalls) == 2
    assert ended.stderr == b""
