"""One client's connection: requests taken up in order and within limits, replies in the same order.

A connection takes up its next request when all earlier ones are answered. Events that their room declares
as overlapping are taken up while earlier overlapping ones are still being written; only their replies wait.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog

from ksi_daemon import wire
from ksi_daemon.errors import CutOff, InvalidRequest, KsiError, ShuttingDown
from ksi_daemon.framing import Framing
from ksi_daemon.hangup import LOOK, has_hung_up
from ksi_daemon.lane import CancelledTooLate

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.relay import Relay
    from ksi_daemon.router import Router
    from ksi_daemon.settings import Settings

log = structlog.get_logger("ksi.transport")

SLICE = 16
"""Requests that a connection begins before others get their turn."""

HIGH_WATER = 256 * 1024
"""Unread bytes from which on a connection takes up no further request."""


class Reply:
    """The place of one request in its connection's order of replies."""

    __slots__ = ("accepted", "frame", "size", "task")

    def __init__(self, *, accepted: bool, frame: bytes | None = None, size: int = 0) -> None:
        self.accepted = accepted
        self.size = size
        self.frame = frame
        self.task: asyncio.Task[None] | None = None


class Host(Protocol):
    """What a connection needs of the server that it belongs to."""

    router: Router
    settings: Settings
    overlap: frozenset[str]
    relay: Relay
    stopping: bool

    def joined(self, connection: Connection) -> None:
        """A client has come."""

    def left(self, connection: Connection) -> None:
        """A client is gone and everything it sent is done."""

    def answered(self, connection: Connection) -> None:
        """Some requests were answered."""


class Connection(asyncio.Protocol):
    """What asyncio calls, and what handlers see as `router.Client`."""

    def __init__(self, server: Host) -> None:
        self._server = server
        self._settings = server.settings
        self._loop = asyncio.get_running_loop()
        self._framing = Framing(server.settings.max_line_bytes)
        self._pending: deque[bytes | KsiError] = deque()
        self._pending_bytes = 0
        self._next: dict[str, Any] | None = None
        self._next_size = 0
        self._begun_bytes = 0
        self._replies: deque[Reply] = deque()
        self._alone = False
        self._pumping = False
        self._flushing = False
        self._reading = True
        self._ended = False
        self._lost = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._calls: list[Callable[[], None]] = []
        self._transport: asyncio.Transport
        self._begun_at: float | None = None
        self.accepted = 0
        """Requests read before the stop began and not answered yet."""

    # called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place among the connections."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._server.joined(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client is gone; what it had sent whole is still done."""
        self._ended = self._lost = True
        self._writable.set()
        for call in self._calls:
            call()
        self._calls.clear()
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Queue the lines that `data` ends."""
        lines = self._framing.feed(data)
        self._queue(lines)
        if not self._framing.begun:
            self._begun_at = None
        elif lines or self._begun_at is None:
            self._begun_at = self._loop.time()
        self._pump()

    def eof_received(self) -> bool:
        """A half-close: a last line without newline counts, and everything is answered before we close."""
        last = self._framing.end()
        self._queue([last] if last else [])
        self._begun_at = None
        self._ended = True
        self._pump()
        self._look_for_hangup()
        return True

    def _look_for_hangup(self) -> None:
        """While something is under way, see whether its client waits for it or has gone."""
        if self._lost or not self._replies:
            return
        if has_hung_up(self._transport.get_extra_info("socket")):
            self._transport.abort()
        else:
            self._loop.call_later(LOOK, self._look_for_hangup)

    def pause_writing(self) -> None:
        """The client reads slower than we answer: take up nothing more."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has read: go on."""
        self._writable.set()
        self._pump()

    # used by handlers and by the server

    def send(self, frame: bytes) -> bool:
        """Queue one line; a client that leaves more than `max_unread_bytes` unread is dropped."""
        transport = self._transport
        if transport.is_closing():
            return False
        if transport.get_write_buffer_size() + len(frame) > self._settings.max_unread_bytes:
            log.warning("client dropped", reason="unread output", limit=self._settings.max_unread_bytes)
            transport.abort()
            return False
        transport.write(frame)
        return True

    async def writable(self) -> None:
        """Wait until little is unread, or the client is gone."""
        await self._writable.wait()

    def on_close(self, call: Callable[[], None]) -> None:
        """Call `call` when the client is gone; soon, if it is already."""
        if self._transport.is_closing():
            self._loop.call_soon(call)
        else:
            self._calls.append(call)

    def refuse(self, error: KsiError) -> None:
        """Say why, and close."""
        self._transport.write(wire.framing_error(error))
        self._transport.close()

    @property
    def closing(self) -> bool:
        """Whether it was told to close."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close when the client has read what was written."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def hurry(self) -> None:
        """The stop has begun: take up what was accepted, whether or not the client reads."""
        self._pump()

    def tasks(self) -> list[asyncio.Task[None]]:
        """The requests under way; one that has not run yet would end without a reply if it were cancelled."""
        return [reply.task for reply in self._replies if reply.task is not None and _has_run(reply.task)]

    def too_slow(self, now: float) -> bool:
        """Whether a line was begun over `request_timeout` seconds ago, and we were reading."""
        begun = self._begun_at
        return begun is not None and self._reading and now - begun > self._settings.request_timeout

    # requests

    def _queue(self, lines: list[Any]) -> None:
        for line in lines:
            if type(line) is not bytes:
                self._pending.append(line)
            elif self._server.stopping:
                self._pending.append(ShuttingDown())
            else:
                self._pending.append(line)
                self._pending_bytes += len(line)
                self.accepted += 1

    def _pump(self) -> None:
        """Take up what may be taken up now, a slice at a time."""
        self._pumping = False
        for _ in range(SLICE):
            if self._next is None:
                if not self._pending or len(self._replies) >= self._settings.max_in_flight:
                    break
                self._decode(self._pending.popleft())
            if self._next is not None and not self._take_up(self._next):
                break
        else:
            self._pump_soon()
        self._throttle()
        if self._ended and not self._replies and not self._pending and self._next is None:
            self._transport.close()
            if self._lost:  # before that a client that does not read still holds its descriptor
                self._server.left(self)

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _throttle(self) -> None:
        """Read on only while little waits to be taken up."""
        settings = self._settings
        full = len(self._pending) > settings.max_in_flight or self._pending_bytes > settings.max_line_bytes
        if full == self._reading and not self._transport.is_closing():
            self._reading = not full
            self._begun_at = self._loop.time() if self._framing.begun else None
            (self._transport.pause_reading if full else self._transport.resume_reading)()

    def _decode(self, line: bytes | KsiError) -> None:
        """Make a line the next request, or answer it with what is wrong with it."""
        accepted = type(line) is bytes
        try:
            if not isinstance(line, bytes):
                raise line
            self._pending_bytes -= len(line)
            self._next_size = len(line)
            self._next = wire.decode_request(line)
        except KsiError as error:
            self._replies.append(Reply(accepted=accepted, frame=wire.framing_error(error)))
            self._flush_soon()

    def _take_up(self, request: dict[str, Any]) -> bool:
        """Begin a request, unless it has to wait: for its turn, for room, for the client to read."""
        overlaps = request["event"] in self._server.overlap if type(request["event"]) is str else False
        if self._alone or self._is_full() or (self._replies and not overlaps):
            return False
        self._next = None
        reply = Reply(accepted=True, size=self._next_size)
        self._begun_bytes += reply.size
        self._replies.append(reply)
        if overlaps:
            self._server.relay.start(self._answer(request), partial(self._done, reply))
        else:
            self._alone = True
            reply.task = self._loop.create_task(self._serve(reply, request))
        return True

    def _is_full(self) -> bool:
        """Whether the client reads too little (a stop does not care), or enough is under way."""
        settings = self._settings
        if not self._writable.is_set() and not self._server.stopping:
            return True
        return len(self._replies) >= settings.max_in_flight or self._begun_bytes > settings.max_line_bytes

    def _done(self, reply: Reply, frame: bytes) -> None:
        reply.frame = frame
        self._flush_soon()

    async def _serve(self, reply: Reply, request: dict[str, Any]) -> None:
        """Answer a request that has its connection to itself."""
        try:
            reply.frame = await self._answer(request)
        except asyncio.CancelledError as end:
            error = CutOff() if isinstance(end, CancelledTooLate) else ShuttingDown()
            correlation_id = request.get("correlation_id")
            reply.frame = wire.request_error(request["event"], error, correlation_id, self._loop.time())
            raise
        finally:
            self._flush()

    async def _answer(self, request: dict[str, Any]) -> bytes:
        event, correlation_id = request["event"], request.get("correlation_id")
        try:
            data = request.get("data", {})
            if type(event) is not str or type(data) is not dict:
                raise _not_a_request(event, data)
            results = await self._server.router.emit(event, data, self)
            return wire.reply(event, results, correlation_id, self._loop.time())
        except KsiError as error:
            return wire.request_error(event, error, correlation_id, self._loop.time())

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send the replies that are ready, as far as no earlier one is missing."""
        self._flushing = False
        replies = self._replies
        frames = []
        while replies and (frame := replies[0].frame) is not None:
            done = replies.popleft()
            self.accepted -= done.accepted
            self._begun_bytes -= done.size
            frames.append(frame)
        if not replies:
            self._alone = False
        if frames:
            self.send(b"".join(frames))
            self._server.answered(self)
        if self._pending or self._next is not None or self._ended:
            self._pump()


def _has_run(task: asyncio.Task[None]) -> bool:
    return inspect.getcoroutinestate(cast("Any", task.get_coro())) != inspect.CORO_CREATED


def _not_a_request(event: object, data: object) -> InvalidRequest:
    if type(event) is not str:
        return InvalidRequest(f"event must be a string, not {wire.json_type(event)}")
    return InvalidRequest(f"data must be an object, not {wire.json_type(data)}")
