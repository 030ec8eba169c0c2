"""What a review of the core found: each fact here was once untrue."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import process, settings, transport
from ksi_daemon.discovery.service import Discovery
from ksi_daemon.errors import OutcomeUnknown, SettingInvalid
from ksi_daemon.groupcommit import GroupCommit
from ksi_daemon.hub import Hub
from ksi_daemon.linefile import LineFile
from ksi_daemon.messaging.core import COUNTED, OfflineQueues
from ksi_daemon.messaging.service import MessageBus
from ksi_daemon.router import Router
from ksi_daemon.site import Site
from tests import families
from tests.daemon import PATIENCE, Running, environment, running, write_flags
from tests.serving import Slow, connections_of, numbered, serving, settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HUNG = """
import sys, threading
from ksi_daemon import process, settings, stages

save, saves = stages.save_state, []

def hang(*about):
    saves.append(about)
    return save(*about) if len(saves) == 1 else threading.Event().wait()

stages.save_state = hang
sys.exit(process.run(settings.load(sys.argv[1])))
"""
"""A daemon under whose `var/migrate` the disk dies after the start."""


class StuckFile(LineFile):
    """A log whose disk takes nothing until it is let."""

    def __init__(self, path: Path, answers: asyncio.Event) -> None:
        super().__init__(path, "messaging")
        self._answers = answers
        self._loop = asyncio.get_running_loop()

    def append(self, data: bytes, durability: str = "os") -> None:
        """Wait on the writer's thread, then append."""
        asyncio.run_coroutine_threadsafe(self._answers.wait(), self._loop).result()
        super().append(data)


class Gone:
    """A client that counts what is to be called at its end."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def send(self, _frame: bytes) -> bool:
        """Take everything."""
        return True

    async def writable(self) -> None:
        """At once."""

    def on_close(self, call: Callable[[], None]) -> None:
        """Keep it."""
        self.calls.append(call)


async def stuck_commit(root: Path) -> tuple[GroupCommit, asyncio.Event]:
    """An open group commit whose disk hangs, and what ends that."""
    answers = asyncio.Event()
    found = GroupCommit(StuckFile(root / "log.jsonl", answers), Site("messaging", settings.load(root)))
    await found.open()
    return found, answers


@pytest.mark.parametrize("pattern", ["[" * 201, "*a" * 500_000, ["a" * 500_000]])
async def test_a_pattern_of_a_mebibyte_is_refused(pattern: object, tmp_path: Path) -> None:
    """Compiling it would take the loop for minutes."""
    router = Router()
    site = Site("discovery", settings.load(tmp_path), hub=Hub(router))
    nothing_to_mine: Any = None
    router.add(Discovery(nothing_to_mine, site).events())

    (refused,) = await router.emit("system:discover", {"event": pattern})
    (found,) = await router.emit("system:discover", {"event": "module:*"})
    assert (refused["code"], found["total"]) == ("invalid_parameter", 3)


async def test_a_close_that_is_cancelled_answers_those_who_wait(tmp_path: Path) -> None:
    """A stop without time left tells the callers of a hanging write that its outcome is not known."""
    commit, answers = await stuck_commit(tmp_path)
    call = asyncio.ensure_future(commit.append(b"{}\n"))
    await settle()
    closing = asyncio.ensure_future(commit.close())
    await settle()
    closing.cancel()

    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(call, 5)
    with pytest.raises(asyncio.CancelledError):
        await closing
    answers.set()
    await commit.close()


async def test_a_write_that_outlives_the_stop_is_not_denied(tmp_path: Path) -> None:
    """A request cut off in mid-write may be on disk, so its reply says `outcome_unknown`."""
    commit, answers = await stuck_commit(tmp_path)

    async def write(_data: object, _client: object) -> str:
        await commit.append(b"{}\n")
        return "written"

    async with serving(tmp_path, {"write": write}) as served:
        caller = await served.connect()
        caller.send({"event": "write", "correlation_id": 1})
        (connection,) = await connections_of(served)
        while not connection.accepted:
            await settle()
        await settle()
        asyncio.get_running_loop().call_later(0.15, answers.set)
        clean = await served.server.drain(0.05)
        reply = await caller.frame()

    assert await commit.close()
    assert (tmp_path / "log.jsonl").read_bytes() == b"{}\n"
    assert (clean, reply["code"], reply["correlation_id"]) == (False, "outcome_unknown", 1)


async def test_a_request_cut_off_before_its_first_step_is_still_answered(tmp_path: Path) -> None:
    """A task that has not run when the stop cancels would end without a reply: it is left to run."""
    slow = Slow()
    async with serving(tmp_path, {"slow": slow}) as served:
        await served.connect()
        (connection,) = await connections_of(served)
        connection.data_received(b'{"event":"slow"}\n')
        before = connection.tasks()
        await slow.until_begun(1)
        after = connection.tasks()
        slow.gate.set()

    assert (len(before), len(after)) == (0, 1)


def test_a_client_that_reads_nothing_holds_no_stop_up(tmp_path: Path) -> None:
    """What it has pipelined is done all the same, and the exit code is 0."""
    write_flags(tmp_path, messaging="async")
    with running(tmp_path) as daemon, daemon.wire() as wire:
        daemon.ask("system:health")
        wire.socket.settimeout(1.0)
        with pytest.raises(TimeoutError):
            wire.send(*({"event": "module:list", "data": {"long": "x" * 4000}} for _ in range(20_000)))
        code = daemon.stop()

    assert code == 0


async def test_a_client_that_reads_nothing_is_counted_until_it_is_gone(tmp_path: Path) -> None:
    """After its half-close too: it holds a descriptor, which is what the limit is about."""

    async def large(_data: object, _client: object) -> str:
        return "x" * 3_000_000

    async with serving(tmp_path, {"large": large}) as served:
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(str(served.path))
        silent.sendall(b'{"event":"large"}\n')
        silent.shutdown(socket.SHUT_WR)
        (connection,) = await connections_of(served)
        while not connection.closing:
            await settle()
        counted = served.server.connections()
        silent.close()
        await served.until_connections(0)

    assert counted == 1


async def test_bytes_under_way_are_bounded(tmp_path: Path) -> None:
    """Behind a disk that hangs, a connection's large requests wait on the client's side, not in memory."""
    gate = asyncio.Event()
    begun = []

    async def slow(data: dict[str, int], _client: object) -> int:
        begun.append(data["n"])
        await gate.wait()
        return data["n"]

    async with serving(tmp_path, {"slow": slow}, overlap="slow", max_line_bytes=10_000) as served:
        caller = await served.connect()
        caller.send(*({**request, "pad": "x" * 4000} for request in numbered("slow", 50)))
        while len(begun) < 3:
            await settle()
        await asyncio.sleep(0.1)
        early = list(begun)
        gate.set()
        replies = await caller.frames(50)

    assert early == [0, 1, 2]
    assert [reply["data"] for reply in replies] == list(range(50))


async def test_a_connection_is_watched_once_however_often_its_agents_connect(tmp_path: Path) -> None:
    """And its end still disconnects every agent that is connected to it, and no other."""
    bus = MessageBus(None, Site("messaging", settings.load(tmp_path)))  # type: ignore[arg-type]
    first, second = Gone(), Gone()
    for _ in range(3):
        await bus.connect({"agent_id": "a"}, first)
        await bus.connect({"agent_id": "b"}, first)
    await bus.connect({"agent_id": "b"}, second)

    (gone,) = first.calls
    gone()

    assert bus.memory()["connected_agents"] == ["b"]
    await bus.connect({"agent_id": "a"}, first)
    assert len(first.calls) == 2


def test_lost_messages_are_counted_in_bounded_memory() -> None:
    """Of the agents that lost any, those with the latest losses are kept."""
    queues = OfflineQueues(1, 10_000_000)
    for number in range(COUNTED + 5):
        for line in (b"1\n", b"2\n", b"3\n"):
            queues.put(str(number), line)

    assert len(queues.dropped) == COUNTED
    assert queues.dropped[str(COUNTED + 4)] == 2


def test_a_dead_disk_under_the_stages_does_not_keep_the_process(tmp_path: Path) -> None:
    """A stop that could not record the stages ends with 1, in time, not never."""
    write_flags(tmp_path)
    (tmp_path / "hung.py").write_text(HUNG, encoding="utf-8")
    env = environment()
    with (tmp_path / "stderr.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, str(tmp_path / "hung.py"), str(tmp_path)], env=env, stderr=log
        )
    daemon = Running(tmp_path, child, env)
    try:
        daemon.wait_ready()
        write_flags(tmp_path, messaging="async")
        while daemon.ask("migration:status")["components"][0]["effective"] != "async":
            pass

        assert daemon.stop() == 1
        assert not daemon.socket_path.exists()
    finally:
        child.kill()
        child.wait(PATIENCE)


def test_anothers_socket_is_left_at_the_end(tmp_path: Path) -> None:
    """Where a daemon of another root has put its own socket on our path, our end does not remove it."""
    path = tmp_path / "shared.sock"
    with transport.bind(path), process._unlinked(path):
        path.unlink()
        theirs = transport.bind(path)

    assert path.exists()
    theirs.close()


def test_the_pid_file_is_not_written_through_a_planted_link(tmp_path: Path) -> None:
    """The old temporary name could be guessed; a link there led to a file of the attacker's choice."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    pid_file = tmp_path / "run" / "ksi_daemon.pid"
    pid_file.parent.mkdir()
    pid_file.with_name(f"{pid_file.name}.{os.getpid()}").symlink_to(victim)

    with process._pid_file(pid_file):
        told = pid_file.read_text()

    assert (told, victim.read_text()) == (f"{os.getpid()}\n", "mine")


def test_an_env_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """With the file's name, instead of a traceback."""
    (tmp_path / ".env").write_bytes(b"KSI_LOG_LEVEL=\xff\xfe\n")

    with pytest.raises(SettingInvalid, match=r"\.env"):
        settings.load(tmp_path)


@pytest.mark.parametrize("root", ["~nobody-has-this-name", "/tmp/bad\udcff"])
def test_a_root_that_cannot_be_named_is_refused(root: str) -> None:
    """An unknown user's home has no path, and JSON cannot tell a path that is no UTF-8."""
    with pytest.raises(SettingInvalid, match="KSI_HOME"):
        settings.load(root)


def test_a_socket_that_is_gone_already_is_no_fault_at_the_end(tmp_path: Path) -> None:
    """Somebody removed it, or its directory, while we ran."""
    path = tmp_path / "run" / "daemon.sock"

    with transport.bind(path), process._unlinked(path):
        path.unlink()

    assert not path.exists()


def test_a_fault_in_the_daemon_is_raised_and_leaves_the_root_free(tmp_path: Path, monkeypatch) -> None:
    """The loop is closed, socket, PID file and lock are let go."""

    async def fail(_self: object, _bound: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr("ksi_daemon.process.Daemon.serve", fail)
    found = settings.load(tmp_path)

    with pytest.raises(ZeroDivisionError):
        process.run(found)
    families.stop_adopting()

    assert (found.socket_path.exists(), found.daemon_pid_file.exists()) == (False, False)
    assert process.holder(found) is None
