"""The socket: private from its first instant, never taken from anybody else, and closed in order."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import transport
from ksi_daemon.errors import SocketUnusable
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def echo(data: dict[str, Any], _client: object) -> Any:
    """Its data."""
    return data


def mode(path: Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_socket_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """It is 0600 in a directory of 0700, and the umask is given back."""
    path = tmp_path / "run/sub/d.sock"
    before = os.umask(umask)
    try:
        transport.bind(path).close()
    finally:
        after = os.umask(before)

    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (0o600, 0o700, 0o700)
    assert after == umask


def test_the_socket_is_private_at_every_moment(tmp_path: Path) -> None:
    """A watcher that looks as often as it can never sees another mode."""
    path, seen, done = tmp_path / "d.sock", set(), threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                seen.add(mode(path))
            except FileNotFoundError:
                continue

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(300):
        transport.bind(path).close()
    done.set()
    watcher.join()

    assert seen == {0o600}


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that nobody serves is what a crash left behind."""
    path = tmp_path / "d.sock"
    transport.bind(path).close()

    with transport.bind(path) as bound, socket.socket(socket.AF_UNIX) as client:
        bound.listen()
        client.connect(str(path))

    assert mode(path) == 0o600


PLANT: dict[str, Callable[[Path, Path], object]] = {
    "file": lambda path, _: path.write_text("mine"),
    "directory": lambda path, _: path.mkdir(),
    "link": lambda path, target: path.symlink_to(target),
    "fifo": lambda path, _: os.mkfifo(path),
}


@pytest.mark.parametrize("kind", PLANT)
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    """A foreign file at the path is refused by name and not touched; a link is not followed."""
    path, target = tmp_path / "d.sock", tmp_path / "target"
    target.write_text("kept")
    PLANT[kind](path, target)
    before = path.lstat()

    with pytest.raises(SocketUnusable, match="is there and is no socket; move it away"):
        transport.bind(path)

    assert path.lstat() == before
    assert target.read_text() == "kept"


def test_a_served_socket_is_left_alone(tmp_path: Path) -> None:
    """Another daemon's socket is refused, and it goes on."""
    path = tmp_path / "d.sock"
    other = transport.bind(path)
    other.listen()

    with pytest.raises(SocketUnusable, match="is served by another daemon"):
        transport.bind(path)

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    other.close()


def test_a_socket_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """A datagram socket at the path belongs to somebody."""
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))

        with pytest.raises(SocketUnusable, match="is taken: "):
            transport.bind(path)


def test_a_path_that_vanishes_meanwhile_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale socket that its owner removes while we look is as good as none."""
    path = tmp_path / "d.sock"
    transport.bind(path).close()

    class Vanishing(socket.socket):
        def connect(self, address: Any) -> None:
            path.unlink(missing_ok=True)
            super().connect(address)

    monkeypatch.setattr("ksi_daemon.transport.socket.socket", Vanishing)
    transport.bind(path).close()

    assert mode(path) == 0o600


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message has the path and the kernel's reason."""
    path = tmp_path / "gone" / "d.sock"
    (tmp_path / "gone").symlink_to("/proc")

    with pytest.raises(SocketUnusable, match=f"^cannot bind {path}: "):
        transport.bind(path)


@pytest.mark.parametrize(("limit", "system"), [(107, "linux"), (103, "darwin")])
def test_a_path_that_is_too_long_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, system: str
) -> None:
    """One byte over the platform's limit is refused, with both numbers and what to set; the limit is not."""
    monkeypatch.setattr(transport, "PATH_LIMIT", limit)
    name = "s" * (limit - len(os.fsencode(tmp_path)) - 1)

    transport.check_path(tmp_path / name)
    with pytest.raises(SocketUnusable) as raised:
        transport.bind(tmp_path / f"{name}s")

    message = str(raised.value)
    assert message.startswith("the socket path ")
    assert f"{limit + 1} bytes" in message
    assert f" {limit}; set KSI_SOCKET_PATH to a shorter one ({tmp_path / name}s)" in message


async def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    """It gets the reason and the end; the others are served, and a place that is freed can be taken."""
    async with serving(tmp_path, {"echo": echo}, max_connections=2) as served:
        first, second = await served.connect(), await served.connect()
        await served.until_connections(2)
        third = await served.connect()

        refused = await third.rest()
        found = await first.ask("echo"), await second.ask("echo")
        second.writer.close()
        await served.until_connections(1)
        fourth = await served.connect()
        later = await fourth.ask("echo", x=1)

    assert refused == [
        {
            "error": "2 connections are open; close one, or raise KSI_MAX_CONNECTIONS",
            "code": "too_many_connections",
        }
    ]
    assert (found, later) == (({}, {}), {"x": 1})


@pytest.mark.soak
async def test_thousands_of_connects_leave_nothing_behind(
    tmp_path: Path, count: Callable[[int, int], int]
) -> None:
    """Clients that come and go at once leave no connection and no descriptor."""
    async with serving(tmp_path, {"echo": echo}) as served:
        before = len(os.listdir("/dev/fd"))
        for _ in range(count(3_000, 20_000)):
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)  # noqa: FBT003 - its only form
                try:
                    client.connect(str(served.path))
                except BlockingIOError:
                    await asyncio.sleep(0)
        while len(os.listdir("/dev/fd")) > before:  # until the last one was accepted and let go
            await asyncio.sleep(0.02)
        left = served.server.connections()
        caller = await served.connect()
        found = await caller.ask("echo")

    assert left == 0
    assert found == {}


async def test_a_broadcast_reaches_every_client(tmp_path: Path) -> None:
    """An unsolicited frame is event and data, for all."""
    async with serving(tmp_path, {"echo": echo}) as served:
        callers = [await served.connect() for _ in range(3)]
        await served.until_connections(3)

        served.server.broadcast(transport.frame("e", {"x": 1}))
        frames = [await caller.frame() for caller in callers]

    assert frames == [{"event": "e", "data": {"x": 1}}] * 3


async def test_a_stop_takes_no_new_clients(tmp_path: Path) -> None:
    """Once the drain has begun nobody can connect; with nothing under way it is over at once."""
    async with serving(tmp_path, {"echo": echo}) as served:
        clean = await served.server.drain(1.0)

        with pytest.raises(ConnectionRefusedError):
            await served.connect()

    assert clean


async def test_a_close_gives_up_clients_that_do_not_read(tmp_path: Path) -> None:
    """Clients that read get their last line; one that does not is dropped after the timeout."""
    async with serving(tmp_path, {"echo": echo}) as served:
        deaf, other = await served.connect(), await served.connect()
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await served.until_connections(2)
        served.server.broadcast(b'"%s"\n' % (b"x" * 2_000_000))

        closing = asyncio.create_task(served.server.close(0.2))
        lines = await other.rest()
        await closing
        await served.until_connections(0)

    assert [len(line) for line in lines] == [2_000_000]
