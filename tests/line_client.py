"""A daemon in the test's own loop, and a client that sees every line it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from ksi_daemon import settings, transport
from ksi_daemon.app import Daemon
from ksi_daemon.registry import AREAS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def flags(**stages: str) -> str:
    """A valid flags.yaml; what is not named is at sync."""
    rows = "".join(f"  {area.name}: {stages.get(area.name, 'sync')}\n" for area in AREAS)
    return f"version: 1\ncomponents:\n{rows}"


class LineClient:
    """One connection; `ask` passes over frames that are no reply, `line` does not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def send(self, event: str, data: Any = None, correlation_id: Any = None) -> None:
        """Send one request."""
        request = {"event": event, "data": {} if data is None else data, "correlation_id": correlation_id}
        self.write(json.dumps(request).encode() + b"\n")

    async def raw(self) -> bytes:
        """The next line; empty when the daemon has hung up."""
        return await self._reader.readline()

    async def line(self) -> dict[str, Any]:
        """The next line as a value."""
        found: dict[str, Any] = json.loads(await self.raw())
        return found

    async def exchange(self, data: bytes) -> dict[str, Any]:
        """Send bytes, return the next line."""
        self.write(data)
        return await self.line()

    async def ask(self, event: str, /, **data: Any) -> Any:
        """The `data` of the reply to one request."""
        self._number += 1
        self.send(event, data, self._number)
        while (reply := await self.line()).get("correlation_id") != self._number:
            pass
        return reply["data"]

    def stop_reading(self) -> None:
        """Take nothing more from the socket."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # a WriteTransport to the types

    def hang_up(self) -> None:
        """Close without waiting."""
        self._writer.close()


class Bench:
    """A running daemon on `root`; `client()` gives one more connection to it."""

    def __init__(self, root: Path, serving: asyncio.Task[bool]) -> None:
        self.root = root
        self.serving = serving
        self._clients: list[LineClient] = []

    async def client(self) -> LineClient:
        """A new connection."""
        path = settings.load(self.root).socket_path
        client = LineClient(*await asyncio.open_unix_connection(str(path), limit=2**24))
        self._clients.append(client)
        return client

    def hang_up(self) -> None:
        """Close every client."""
        for client in self._clients:
            client.hang_up()


@contextlib.asynccontextmanager
async def daemon(root: Path, **stages: str) -> AsyncIterator[Bench]:
    """Serve `root` for the length of the block, with the given stages in its flags.yaml."""
    (root / "flags.yaml").write_text(flags(**stages))
    found = settings.load(root)
    bound = transport.bind(found.socket_path)
    bound.listen()  # a client may connect at once; it is answered when the daemon is ready
    here = Daemon(found)
    serving = asyncio.create_task(here.serve(bound))
    bench = Bench(root, serving)
    try:
        await (await bench.client()).ask("completion:token_usage")  # answered when the history is loaded
        yield bench
    finally:
        bench.hang_up()
        here.stop()
        await serving
