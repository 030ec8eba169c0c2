"""How turns end on the async side: cancelled, stopped, overdue, flooding; and nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ksi_daemon import children, family, settings
from ksi_daemon.claude_cli import aio as aio_side
from ksi_daemon.claude_cli import places
from ksi_daemon.claude_cli.core import Turn
from ksi_daemon.claude_cli.exercise import FIRST
from ksi_daemon.claude_cli.failures import StartFailed
from ksi_daemon.errors import ComponentClosed, IoFailed
from ksi_daemon.site import Site
from tests.rooms import SIDES, room
from tests.test_claude_cli import lay, turn

FAMILY = r"""#!/bin/sh
# Starts a tool in a session of its own, writes down both, and waits.
root=${0%/bin/claude}
setsid sh -c 'trap "" TERM; echo $$ > "$0-$1"; while :; do sleep 0.05; done' "$root/tool" $$ &
until [ -s "$root/tool-$$" ]; do sleep 0.01; done
read -r tool < "$root/tool-$$"
printf '%s\n%s\n' $$ "$tool" >> "$root/pids"
IFS= read -r prompt
case $prompt in
    stubborn) trap "" TERM; while :; do sleep 0.05; done ;;
    flood) while :; do echo "$0 $0 $0 $0 $0 $0 $0 $0"; done ;;
    answer) echo '{"result":"ok"}' ;;
    *) sleep 30 ;;
esac
"""

needs_setsid = pytest.mark.skipif(
    sys.platform != "linux", reason="descendants are found by their environment on Linux"
)


def pids(root):
    """The processes that the program wrote down."""
    path = root / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def lives(pid):
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


async def until(condition):
    """Wait for a condition."""
    while not condition():
        await asyncio.sleep(0.01)


@pytest.fixture
async def claude(tmp_path):
    """The async side with a program that leaves a tool behind."""
    area = lay(tmp_path, FAMILY, claude_grace=0.2, claude_max_output_bytes=65536)
    async with room(area, "async", tmp_path) as made:
        yield made


async def begun(claude, root, prompt="wait", **data):
    """A turn under way, with its tool."""
    task = asyncio.create_task(turn(claude, prompt, **data))
    await until(lambda: len(pids(root)) >= 2)
    return task


@needs_setsid
@pytest.mark.parametrize(
    ("prompt", "code"),
    [("answer", None), ("wait", "turn_timeout"), ("stubborn", "turn_timeout"), ("flood", "output_too_large")],
)
async def test_nothing_is_left_after_any_ending(claude, tmp_path, prompt, code):
    """The tool in a session of its own, deaf to SIGTERM, is gone with its turn."""
    reply = await turn(claude, prompt, timeout=30 if prompt in {"answer", "flood"} else 1)

    assert reply.get("code") == code
    assert len(pids(tmp_path)) == 2
    assert [pid for pid in pids(tmp_path) if lives(pid)] == []


@needs_setsid
@pytest.mark.parametrize("prompt", ["wait", "stubborn"])
async def test_a_cancelled_turn_is_ended_with_all_it_started(claude, tmp_path, prompt):
    """And its session is free for the next."""
    task = await begun(claude, tmp_path, prompt, session_id=FIRST)
    following = asyncio.create_task(turn(claude, "answer", session_id=FIRST))

    task.cancel()
    await asyncio.wait([task])
    left = [pid for pid in pids(tmp_path)[:2] if lives(pid)]

    assert task.cancelled()
    assert left == []
    assert (await following)["status"] == "completed"
    assert [pid for pid in pids(tmp_path) if lives(pid)] == []


async def test_a_waiting_turn_that_is_cancelled_never_runs(claude, tmp_path):
    """The one behind it does."""
    first = await begun(claude, tmp_path, session_id=FIRST)
    waiting, following = (asyncio.create_task(turn(claude, "answer", session_id=FIRST)) for _ in range(2))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    first.cancel()

    assert waiting.cancelled()
    assert (await following)["status"] == "completed"
    assert len(pids(tmp_path)) == 4


@needs_setsid
async def test_a_stop_is_quick_and_leaves_nothing(tmp_path):
    """Whatever grace the setting gives: running and waiting turns end with the same error."""
    area = lay(tmp_path, FAMILY, claude_grace=60, claude_parallel=2)
    async with room(area, "async", tmp_path) as claude:
        tasks = [
            asyncio.create_task(turn(claude, prompt, session_id=session))
            for prompt, session in (
                ("stubborn", FIRST),
                ("answer", FIRST),
                ("stubborn", None),
                ("answer", None),
            )
        ]
        await until(lambda: len(pids(tmp_path)) >= 4)
        began = time.monotonic()
        await claude.close()
        took = time.monotonic() - began
        replies = await asyncio.gather(*tasks)
        left = [pid for pid in pids(tmp_path) if lives(pid)]
        await claude.open()

    assert [reply["code"] for reply in replies] == ["shutting_down"] * 4
    assert left == []
    assert took < 10  # the grace is 60


@pytest.fixture
async def alone(tmp_path):
    """The async side without a service, and turns to give it."""
    area = lay(tmp_path, FAMILY, claude_grace=60)
    async with room(area, "async", tmp_path) as made:
        yield made.backend


def a_turn(root, prompt="wait", name="one"):
    """A turn as the service makes it."""
    return Turn(name, (), prompt, str(root / "var/sandbox/x"), 30.0)


@needs_setsid
async def test_a_close_ends_what_runs(alone, tmp_path):
    """Without grace; who waited for it is told, and so is who comes later."""
    task = asyncio.create_task(alone.turn(a_turn(tmp_path, "stubborn")))
    await until(lambda: len(pids(tmp_path)) >= 2)

    await alone.close()

    with pytest.raises(ComponentClosed):
        await task
    assert [pid for pid in pids(tmp_path) if lives(pid)] == []
    for call in (alone.turn(a_turn(tmp_path)), alone.recall(FIRST), alone.remember(FIRST, "x")):
        with pytest.raises(ComponentClosed):
            await call


async def test_a_close_before_the_command_starts(alone, tmp_path):
    """It never does."""
    task = asyncio.create_task(alone.turn(a_turn(tmp_path)))
    await asyncio.sleep(0)

    await alone.close()

    with pytest.raises(ComponentClosed):
        await task
    assert pids(tmp_path) == []


async def test_a_second_cancel_ends_the_patience(alone, tmp_path):
    """The grace is a minute; the process is gone at once."""
    task = asyncio.create_task(alone.turn(a_turn(tmp_path, "stubborn")))
    await until(lambda: len(pids(tmp_path)) >= 2)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.05)

    with pytest.raises(asyncio.CancelledError):
        await task
    assert [pid for pid in pids(tmp_path) if lives(pid)] == []


@pytest.mark.parametrize("error", [None, OSError(5, "gone")])
async def test_a_command_that_is_faster_than_its_cancel(alone, tmp_path, monkeypatch, error):
    """Whoever cancelled gets no answer, and nothing is said of an error that nobody saw."""
    started = asyncio.Event()

    async def run(*_args, **_options):
        started.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if error:
            raise error
        return children.Finished(0, b"", b"")

    monkeypatch.setattr(children, "run", run)
    task = asyncio.create_task(alone.turn(a_turn(tmp_path)))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_system_on_the_way(alone, tmp_path, monkeypatch):
    """Is a failed start, and may pass."""

    async def run(*_args, **_options):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(children, "run", run)
    with pytest.raises(StartFailed) as raised:
        await alone.turn(a_turn(tmp_path))

    assert raised.value.fields() == {
        "code": "start_failed",
        "component": "claude_cli",
        "errno": "EAGAIN",
        "retryable": True,
    }


async def test_a_stuck_disk_costs_an_error(alone, monkeypatch):
    """Not silence: after KSI_CALL_TIMEOUT it says what hangs."""
    stuck = threading.Event()
    monkeypatch.setattr(places.Places, "recall", lambda *_args: stuck.wait(30))
    alone._site.settings.__dict__["call_timeout"] = 0.05

    with pytest.raises(IoFailed) as raised:
        await alone.recall(FIRST)
    stuck.set()

    assert (raised.value.errno, raised.value.transient) == ("ETIMEDOUT", True)
    assert "recall a session" in str(raised.value)


@pytest.mark.parametrize("side", SIDES)
@needs_setsid
async def test_what_a_killed_daemon_left_is_ended_at_the_next_start(side, tmp_path):
    """By the root in its mark; another root's processes live on."""
    area = lay(tmp_path)
    made = places.Places(Site("claude_cli", settings.load(tmp_path)))
    mark, other = made.mark(a_turn(tmp_path)), "0123456789ab-one"
    orphans = [
        subprocess.Popen(["sleep", "60"], env={family.MARK: name, "PATH": os.environ["PATH"]})
        for name in (mark, other)
    ]
    try:
        async with room(area, side, tmp_path) as claude:
            assert orphans[0].wait(10) == -9
            assert orphans[1].poll() is None
            await claude.send("claude_cli:status")
    finally:
        for orphan in orphans:
            orphan.kill()
            orphan.wait()


@needs_setsid
async def test_a_later_opening_ends_nothing(tmp_path):
    """A flip opens a side while the other's turns run."""
    area = lay(tmp_path, FAMILY)
    async with room(area, "async", tmp_path) as claude:
        task = await begun(claude, tmp_path)
        with claude.overlooked():
            places.Places(claude.site).sweep()
        assert all(lives(pid) for pid in pids(tmp_path))
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("side", SIDES)
async def test_a_process_table_that_cannot_be_read_stops_nobody(side, tmp_path, monkeypatch):
    """What may have been left is only logged."""

    def unreadable(_prefix):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(family, "sweep", unreadable)
    area = lay(tmp_path)
    async with room(area, side, tmp_path) as claude:
        assert (await turn(claude))["status"] == "completed"


async def test_a_sweep_that_hangs_holds_up_no_start(tmp_path, monkeypatch):
    """The first turn waits for it, the daemon does not."""
    over = threading.Event()
    monkeypatch.setattr(family, "sweep", lambda _prefix: over.wait(30) and 0)
    monkeypatch.setattr(aio_side, "SWEEP", 0.01)
    area = lay(tmp_path)
    async with room(area, "async", tmp_path) as claude:
        task = asyncio.create_task(turn(claude))
        await asyncio.sleep(0.05)
        assert not task.done()
        over.set()
        assert (await task)["status"] == "completed"
