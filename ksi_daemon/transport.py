"""The Unix socket: bound private from its first instant, served within limits, stopped without loss."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon import wire
from ksi_daemon.connection import Connection
from ksi_daemon.errors import RequestTooSlow, SocketUnusable, TooManyConnections
from ksi_daemon.linefile import private_directory
from ksi_daemon.relay import Relay

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.router import Router
    from ksi_daemon.settings import Settings

log = structlog.get_logger("ksi.transport")

PATH_LIMIT = 107 if sys.platform.startswith("linux") else 103
"""Bytes of a socket path: sun_path less its NUL, 108 on Linux, 104 on macOS (unix(7), unix(4))."""

BACKLOG = 1024

_LEAVE_THE_SOCKET: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""From 3.13 on asyncio removes the path when it stops listening; it stays until the process has ended."""

CUT_OFF = 0.3
"""Seconds in which requests that were cancelled by the stop are answered."""


def bind(path: Path) -> socket.socket:
    """A bound socket, not listening yet: mode 0600, in a directory of mode 0700, at no moment anything else.

    A stale socket is replaced; one that is served, or anything that is no socket, is left alone. Raises
    `SocketUnusable`. The umask is the process's: call it before threads are started.
    """
    check_path(path)
    private_directory(path.parent)
    _remove_stale(path)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        found.bind(str(path))
    except OSError as error:
        found.close()
        raise SocketUnusable(f"cannot bind {path}: {error.strerror}") from error
    finally:
        os.umask(umask)
    found.setblocking(False)  # noqa: FBT003 - its only form
    return found


def check_path(path: Path) -> None:
    """Raises `SocketUnusable` for a path that the platform cannot take."""
    size = len(os.fsencode(path))
    if size > PATH_LIMIT:
        text = f"the socket path has {size} bytes and may have {PATH_LIMIT}"
        raise SocketUnusable(f"{text}; set KSI_SOCKET_PATH to a shorter one ({path})")


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(f"{path} is there and is no socket; move it away")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise SocketUnusable(f"{path} is taken: {error}") from error
    else:
        raise SocketUnusable(f"{path} is served by another daemon")
    finally:
        probe.close()


class Server:
    """All connections of the daemon. Made on the loop's thread."""

    def __init__(self, router: Router, settings: Settings, overlap: frozenset[str]) -> None:
        self.router = router
        self.settings = settings
        self.overlap = overlap
        self.relay = Relay()
        self.stopping = False
        self._connections: set[Connection] = set()
        self._answered = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, bound: socket.socket) -> None:
        """Begin to accept clients on a bound socket."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(
            lambda: Connection(self), sock=bound, backlog=BACKLOG, **_LEAVE_THE_SOCKET
        )
        self._sweeper = loop.create_task(self._sweep())

    def broadcast(self, frame: bytes) -> None:
        """Send one line to every client."""
        for connection in list(self._connections):
            connection.send(frame)

    def connections(self) -> int:
        """How many clients there are."""
        return len(self._connections)

    async def drain(self, timeout: float) -> bool:
        """Stop taking requests, and answer those that were read; False when one was cut off.

        What still runs after `timeout` s is cancelled; a request that only waited is answered even then.
        """
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.hurry()
        if await self._all_answered(timeout):
            return True
        tasks = [task for connection in self._connections for task in connection.tasks()]
        for task in tasks:
            task.cancel()
        return await self._all_answered(CUT_OFF) and not any(task.cancelled() for task in tasks)

    async def _all_answered(self, timeout: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while any(connection.accepted for connection in self._connections):
                    self._answered.clear()
                    await self._answered.wait()
            return True
        return False

    async def close(self, timeout: float) -> None:
        """Close every connection: who reads within `timeout` seconds gets the last lines."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._connections:
                    self._answered.clear()
                    await self._answered.wait()
        self.relay.close()
        for connection in list(self._connections):
            connection.abort()

    # called by connections

    def joined(self, connection: Connection) -> None:
        """A new client: it is one of us, or is told that there is no room."""
        self._connections.add(connection)
        if len(self._connections) > self.settings.max_connections:
            connection.refuse(TooManyConnections(self.settings.max_connections))

    def left(self, connection: Connection) -> None:
        """A client is gone and everything it sent is done."""
        self._connections.discard(connection)
        self._answered.set()

    def answered(self, connection: Connection) -> None:
        """Some requests were answered."""
        if self.stopping and not connection.accepted:
            self._answered.set()

    async def _sweep(self) -> None:
        """Close the connections that began a request and do not finish it."""
        interval = min(1.0, self.settings.request_timeout / 4)
        while True:
            await asyncio.sleep(interval)
            now = asyncio.get_running_loop().time()
            for connection in list(self._connections):
                if connection.closing and connection.too_slow(now):
                    connection.abort()
                elif connection.too_slow(now):
                    log.info("client closed", reason="request not finished in time")
                    connection.refuse(RequestTooSlow(self.settings.request_timeout))


def frame(event: str, data: dict[str, Any]) -> bytes:
    """An unsolicited frame."""
    return wire.encode({"event": event, "data": data})
