"""A steady load of real clients on a daemon: who sent what, and which of it was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.completion import core as completion
from ksi_daemon.messaging import core as messaging

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ksi_daemon.settings import Settings

TICK_S = 0.01
PING_S = 0.02
ANSWER_S = 15.0
"""Seconds that a request may stay unanswered: longer than the daemon keeps a call waiting during a flip."""
LINE_LIMIT = 1024 * 1024
TEXT = "x" * 160
"""Brings a message's line to about 300 bytes."""

Identity = tuple[str, int]
"""Who wrote a record, and the number that it gave it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of writer: so many connections, each `rate` requests a second, at most `window` unanswered.

    `data` makes a request's data from the client's name and a number, `identity` finds both in a record.
    """

    component: str
    client: str
    clients: int
    rate: int
    window: int
    event: str
    data: Callable[[str, int], dict[str, Any]]
    path: Callable[[Settings], Path]
    identity: Callable[[dict[str, Any]], Identity]


@dataclass(frozen=True, slots=True)
class Ledger:
    """One client's account: it sent the numbers 0 to `sent` - 1 in order; what came of each.

    `refused` are those that got an error, with its text; `lost` says why the connection ended before its
    time, empty when it did not.
    """

    client: str
    component: str
    sent: int
    acknowledged: frozenset[int]
    refused: Mapping[int, str]
    lost: str


def _message(client: str, number: int) -> dict[str, Any]:
    return {"agent_id": client, "event_type": "DEMO", "message": {"number": number, "text": TEXT}}


def _usage(client: str, number: int) -> dict[str, Any]:
    usage = {"input_tokens": number % 1000, "output_tokens": 20}
    return {
        "request_id": f"{client}:{number}",
        "agent_id": client,
        "model": "claude-cli/demo",
        "usage": usage,
    }


def _of_message(record: dict[str, Any]) -> Identity:
    if record["type"] == "COMPLETION_RESULT":  # an agent's one answer
        return str(record["client_id"]), 0
    if type(record["number"]) is not int:
        raise TypeError("no number")
    return str(record["from"]), record["number"]


def _of_usage(record: dict[str, Any]) -> Identity:
    if not str(record["request_id"]).startswith(f"{record['agent_id']}:"):  # an agent's one turn
        return str(record["agent_id"]), 0
    client, _, number = str(record["request_id"]).rpartition(":")
    return client, int(number)


KINDS = (
    Kind("messaging", "publisher", 4, 500, 64, "message:publish", _message, messaging.log_path, _of_message),
    Kind(
        "completion",
        "recorder",
        1,
        200,
        32,
        "completion:record_usage",
        _usage,
        completion.log_path,
        _of_usage,
    ),
)
"""The whole load; the original daemon did about 800 publishes a second at its best."""


class Load:
    """All writers and a pinger on one socket; `run` ends after `stop`, when everything sent is answered."""

    def __init__(self, socket: Path, kinds: tuple[Kind, ...] = KINDS) -> None:
        self._socket = socket
        self._writers = [Writer(f"{kind.client}-{n}", kind) for kind in kinds for n in range(kind.clients)]
        self._pinger = Pinger()

    @property
    def acknowledged(self) -> int:
        """Requests answered without an error so far, of all writers."""
        return sum(writer.acknowledged for writer in self._writers)

    def take_pings(self) -> list[float]:
        """Milliseconds of each ping since the last call."""
        return self._pinger.take()

    def ledgers(self) -> tuple[Ledger, ...]:
        """Every writer's account up to now."""
        return tuple(writer.ledger() for writer in self._writers)

    def stop(self) -> None:
        """Send nothing more."""
        for writer in self._writers:
            writer.stop()

    async def run(self) -> None:
        """Write and ping. A broken connection ends its writer alone, and stands in its ledger."""
        async with asyncio.TaskGroup() as group:
            pinging = group.create_task(self._pinger.run(self._socket))
            await asyncio.gather(*(writer.run(self._socket) for writer in self._writers))
            pinging.cancel()


class Writer:
    """One connection that pipelines requests at its pace and takes their replies in order."""

    def __init__(self, name: str, kind: Kind) -> None:
        self._name = name
        self._kind = kind
        self._sent = 0
        self._waiting: deque[int] = deque()
        self._acknowledged: set[int] = set()
        self._refused: dict[int, str] = {}
        self._lost = ""
        self._stopping = asyncio.Event()

    @property
    def acknowledged(self) -> int:
        """Requests answered without an error so far."""
        return len(self._acknowledged)

    def stop(self) -> None:
        """Send nothing more; `run` returns when everything sent is answered."""
        self._stopping.set()

    def ledger(self) -> Ledger:
        """The account up to now."""
        acknowledged, refused = frozenset(self._acknowledged), dict(self._refused)
        return Ledger(self._name, self._kind.component, self._sent, acknowledged, refused, self._lost)

    async def run(self, socket: Path) -> None:
        """Write until told to stop, then take the last replies. A broken connection ends it, and is kept."""
        try:
            reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_LIMIT)
            try:
                await self._exchange(reader, writer)
            finally:
                writer.close()
        except TimeoutError:
            self._lost = f"no reply within {ANSWER_S:g} s, {len(self._waiting)} unanswered"
        except (OSError, ValueError) as error:
            self._lost = f"{error}, {len(self._waiting)} unanswered"

    async def _exchange(self, reader: StreamReader, writer: StreamWriter) -> None:
        sending = asyncio.create_task(self._send(writer))
        try:
            await self._receive(reader)
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        if not sending.cancelled():
            sending.result()

    async def _send(self, writer: StreamWriter) -> None:
        """Each tick as many as the pace owes and the window allows; what it does not allow is never sent."""
        loop = asyncio.get_running_loop()
        began, paid = loop.time(), 0
        while not self._stopping.is_set():
            owed = int((loop.time() - began) * self._kind.rate) - paid
            paid += owed
            requests = [self._request() for _ in range(min(owed, self._kind.window - len(self._waiting)))]
            writer.write(b"".join(requests))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_S)
        writer.write_eof()

    def _request(self) -> bytes:
        number = self._sent
        self._sent += 1
        self._waiting.append(number)
        data = self._kind.data(self._name, number)
        frame = {"event": self._kind.event, "data": data, "correlation_id": number}
        return orjson.dumps(frame, option=orjson.OPT_APPEND_NEWLINE)

    async def _receive(self, reader: StreamReader) -> None:
        """Take frames until the daemon has answered everything and closes."""
        while line := await _line(reader):
            self._take(orjson.loads(line))
        if self._waiting or not self._stopping.is_set():
            raise ConnectionResetError("the daemon hung up")

    def _take(self, frame: dict[str, Any]) -> None:
        """One frame: a reply settles the oldest unanswered request; the others were not asked for."""
        if "event" in frame and "correlation_id" not in frame:
            return
        expected = self._waiting[0] if self._waiting else None
        if expected is None or frame.get("correlation_id") != expected:
            raise ConnectionResetError(f"request {expected} should have been answered, not {frame}")
        self._waiting.popleft()
        error = _error_of(frame)
        if error is None:
            self._acknowledged.add(expected)
        else:
            self._refused[expected] = error


class Pinger:
    """One connection that asks for health every `PING_S` seconds and notes how long the answer took."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    def take(self) -> list[float]:
        """Milliseconds of each ping since the last call."""
        taken, self._taken = self._taken, []
        return taken

    async def run(self, socket: Path) -> None:
        """Ping until cancelled or the daemon fails; how it failed the writers tell, in their ledgers."""
        with contextlib.suppress(OSError, ValueError):
            reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_LIMIT)
            try:
                await self._ping(reader, writer)
            finally:
                writer.close()

    async def _ping(self, reader: StreamReader, writer: StreamWriter) -> None:
        began = time.perf_counter()
        writer.write(b'{"event":"system:health","correlation_id":1}\n')
        while line := await _line(reader):
            if "correlation_id" in orjson.loads(line):
                self._taken.append((time.perf_counter() - began) * 1e3)
                await asyncio.sleep(PING_S)
                began = time.perf_counter()
                writer.write(b'{"event":"system:health","correlation_id":1}\n')


async def _line(reader: StreamReader) -> bytes:
    async with asyncio.timeout(ANSWER_S):
        return await reader.readline()


def _error_of(frame: dict[str, Any]) -> str | None:
    """The error of a reply, at the top level or in its data (the KSI contract, 1.5)."""
    data = frame.get("data")
    for place in (frame, data if isinstance(data, dict) else {}):
        if "error" in place:
            return f"{place.get('code', 'error')}: {place['error']}"
    return None
