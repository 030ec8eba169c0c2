"""The transport alone on this test's loop: a server with the test's own events, and clients that await."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ksi_daemon import transport
from ksi_daemon.router import Event, Router
from ksi_daemon.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from ksi_daemon.router import Client

READER_LIMIT = 64 * 1024 * 1024


class Caller:
    """A client of the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *requests: Mapping[str, Any] | bytes) -> None:
        """Each request as a line; bytes as they are."""
        for item in requests:
            self.writer.write(item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n")

    async def frame(self) -> Any:
        """The next line; None at the end."""
        line = await self.reader.readline()
        return json.loads(line) if line else None

    async def frames(self, count: int) -> list[Any]:
        """The next `count` lines."""
        return [await self.frame() for _ in range(count)]

    async def rest(self) -> list[Any]:
        """Every line until the end."""
        return [json.loads(line) async for line in self.reader]

    async def ask(self, event: str, **data: Any) -> Any:
        """The data of one request's reply."""
        self.send({"event": event, "data": data})
        return (await self.frame())["data"]


class Served:
    """A listening server, and how to reach it."""

    def __init__(self, server: transport.Server, path: Path) -> None:
        self.server = server
        self.path = path
        self._callers: list[Caller] = []

    async def connect(self) -> Caller:
        """A new client; its connection is closed at the end of the test."""
        caller = Caller(*await asyncio.open_unix_connection(str(self.path), limit=READER_LIMIT))
        self._callers.append(caller)
        return caller

    async def until_connections(self, count: int) -> None:
        """Wait until the server has that many clients."""
        while self.server.connections() != count:
            await asyncio.sleep(0.005)

    async def hang_up(self) -> None:
        """Close every client."""
        for caller in self._callers:
            caller.writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    root: Path, handlers: Mapping[str, Callable[..., Awaitable[Any]]], *, overlap: str = "", **limits: Any
) -> AsyncIterator[Served]:
    """A server with one event for each handler; those named in `overlap` may overlap."""
    settings = Settings(root=root, **limits)
    router = Router()
    router.add(Event(name, handler, "a summary") for name, handler in handlers.items())
    bound = transport.bind(settings.socket_path)
    server = transport.Server(router, settings, frozenset(overlap.split()))
    await server.listen(bound)
    served = Served(server, settings.socket_path)
    try:
        yield served
    finally:
        await served.hang_up()
        await server.drain(1.0)
        await server.close(1.0)


async def echo(data: dict[str, Any], _client: Client | None) -> Any:
    """Its data."""
    return data


class Slow:
    """A handler that ends when it is let, and tells what ran at the same time."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.gate = asyncio.Event()

    async def __call__(self, data: dict[str, Any], _client: Client | None) -> Any:
        """Begin at once, end when the gate opens, later numbers first."""
        number = data.get("n", 0)
        self.begun.append(number)
        await self.gate.wait()
        for _ in range(20 - number):
            await asyncio.sleep(0)
        self.ended.append(number)
        return number

    async def until_begun(self, count: int) -> None:
        """Wait until that many have begun."""
        while len(self.begun) < count:
            await asyncio.sleep(0.001)


def numbered(event: str, count: int) -> list[dict[str, Any]]:
    """So many requests, each with its number."""
    return [{"event": event, "data": {"n": n}, "correlation_id": n} for n in range(count)]


async def settle() -> None:
    """Let everything that can run without further input run."""
    for _ in range(50):
        await asyncio.sleep(0)


async def connections_of(served: Served) -> list[Any]:
    """The server's side of the only connection."""
    await served.until_connections(1)
    return list(served.server._connections)
