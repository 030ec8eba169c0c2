"""The original's clients, imitated from what they send and take: the command line and three libraries.

None of their code is here; each does on the socket what the KSI contract, 1.7 to 1.9, says of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import uuid
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 4096
OLD_LIMIT = 64 * 1024
SYSTEM_LIMIT_S = 5.0
LIMIT_S = 30.0


class NotHealthy(AssertionError):
    """The command line would stop this daemon and start another one."""


class EnvelopeError(Exception):
    """The reply's envelope has an error."""


def _lines(path: Path, timeout: float):
    """A connection, and its lines."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    connection.connect(str(path))
    return connection, connection.makefile("rb")


def _request(event: str, data: Any, correlation_id: str | None = None) -> bytes:
    request = {"event": event, "data": data}
    return (
        json.dumps(request | ({"correlation_id": correlation_id} if correlation_id else {})).encode() + b"\n"
    )


class CommandLine:
    """`ksi-cli`, run in a directory: the daemon check first, then discovery, then the request itself."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "var/run/daemon.sock"

    def check(self) -> None:
        """The PID file names a live process, and the first line within 2 s says healthy."""
        pid = int((self._directory / "var/run/ksi_daemon.pid").read_text())
        os.kill(pid, 0)
        connection, lines = _lines(self._socket, 2.0)
        with connection, lines:
            connection.sendall(_request("system:health", {}))
            reply = json.loads(lines.readline())
        data = reply.get("data")
        answers = data if isinstance(data, list) else [data]
        if "error" in reply or not any(answer.get("status") == "healthy" for answer in answers):
            raise NotHealthy(reply)

    def run(self, event: str, data: dict[str, Any]) -> dict[str, Any]:
        """The reply's envelope; frames that nobody asked for are passed over."""
        self.check()
        connection, lines = _lines(self._socket, SYSTEM_LIMIT_S)
        with connection, lines:
            self._ask(connection, lines, "system:discover", {})
            return self._ask(connection, lines, event, data)

    def send(self, event: str, *flags: str, given: str | None = None) -> dict[str, Any]:
        """`ksi send EVENT --name value …`, or `--json OBJECT`."""
        if given is not None:
            return self.run(event, json.loads(given))
        pairs = zip(flags[::2], flags[1::2], strict=True)
        data = {name.removeprefix("--").replace("-", "_"): _value(text) for name, text in pairs}
        return self.run(event, {**data, "health": False})

    @staticmethod
    def _ask(connection: socket.socket, lines: Any, event: str, data: Any) -> dict[str, Any]:
        wanted = str(uuid.uuid4())
        connection.sendall(_request(event, data, wanted))
        while True:
            reply: dict[str, Any] = json.loads(lines.readline())
            if reply.get("correlation_id") == wanted:
                return reply


def _value(text: str) -> Any:
    """Text, but for what begins like JSON and is JSON."""
    if text[:1] in {"{", "["}:
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return text


class EventClient:
    """The asyncio library: replies by correlation id, the rest to handlers by exact name; 64 KiB a line."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {}
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def connect(self, path: Path) -> None:
        """Connect and discover, as it does at once."""
        self._reader, self._writer = await asyncio.open_unix_connection(str(path), limit=OLD_LIMIT)
        self._reading = asyncio.create_task(self._read())
        await self.send("system:health", {})
        await self.send("system:discover", {})

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def send(self, event: str, data: Any) -> Any:
        """The data of the reply. Raises `EnvelopeError`, and `TimeoutError` as it would."""
        correlation = str(uuid.uuid4())
        self._waiting[correlation] = asyncio.get_running_loop().create_future()
        self._writer.write(_request(event, data, correlation))
        limit = SYSTEM_LIMIT_S if event.startswith("system:") else LIMIT_S
        reply = await asyncio.wait_for(self._waiting[correlation], limit)
        del self._waiting[correlation]
        if "error" in reply:
            raise EnvelopeError(reply["error"])
        return reply["data"]

    async def _read(self) -> None:
        while line := await self._reader.readuntil():
            frame = json.loads(line)
            waiting = self._waiting.get(frame.get("correlation_id"))
            if waiting is not None:
                waiting.set_result(frame)
            elif "event" in frame:
                self.seen.setdefault(frame["event"], []).append(frame["data"])


def minimal(path: Path, event: str, data: Any) -> Any:
    """The small blocking library: 4,096 bytes at a time until the braces are even and it is one document."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        connection.connect(str(path))
        connection.sendall(_request(event, data))
        found = b""
        while chunk := connection.recv(CHUNK):
            found += chunk
            if found.count(b"{") == found.count(b"}"):
                with contextlib.suppress(ValueError):
                    reply = json.loads(found)
                    if "error" in reply:
                        raise EnvelopeError(reply["error"])
                    return reply["data"]
    raise ConnectionError(found)


def control_health(path: Path) -> bool:
    """The control script: one read of 4,096 bytes, which must be a document."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        connection.connect(str(path))
        connection.sendall(_request("system:health", {}))
        return bool(json.loads(connection.recv(CHUNK)))


def control_stop(path: Path) -> str:
    """The control script's stop: what it makes of the frames within two seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        connection.connect(str(path))
        connection.sendall(_request("system:shutdown", {}))
        found = b""
        with contextlib.suppress(TimeoutError):
            while chunk := connection.recv(CHUNK):
                found += chunk
    events = [json.loads(line).get("event") for line in found.splitlines()]
    if "system:shutdown_complete" in events:
        return "full sequence"
    return "notified" if "system:shutdown_notification" in events else "unanswered"
