"""The load generator, a process of its own: pipelined publishes on some connections, as cheaply as possible.

It says `ready`, begins when a line comes on stdin, says `over` when the measured time is, and then what was
acknowledged, as one line of JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

import orjson

WINDOW: Final = 128
"""Requests of a connection that are under way at most."""

BLOCK: Final = 32
"""Requests sent with one call."""

PER_SECOND: Final = 30_000
"""Requests made beforehand for each connection and second; when they are used up the time is over."""

PATIENCE_MS: Final = 15_000
CONTENT: Final = "x" * 150
"""Makes a record of about 300 bytes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: `warm_s` seconds that do not count, then `seconds` that do."""

    path: str
    connections: int
    warm_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """`publishes` were acknowledged in the `seconds` that count, `acknowledged` by each connection in all.

    `wrong` says what is wrong with the first reply that is not the one expected at its place, if any.
    """

    publishes: int
    seconds: float
    acknowledged: list[int]
    wrong: str | None


def agent(connection: int) -> str:
    """The sender's name of a connection."""
    return f"bench-{connection}"


def request(connection: int, number: int) -> bytes:
    """The publish of that number, as a line; its number is its correlation id."""
    message = {"number": number, "content": CONTENT}
    data = {"agent_id": agent(connection), "event_type": "NOTE", "message": message}
    line = {"event": "message:publish", "data": data, "correlation_id": number}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


class Stream:
    """One connection: what is to be sent, what was acknowledged, and the replies, to be looked at later."""

    def __init__(self, path: str, connection: int, count: int) -> None:
        numbers = range(count)
        self._blocks = [
            b"".join(request(connection, number) for number in numbers[at : at + BLOCK])
            for at in range(0, count, BLOCK)
        ]
        self._next = 0
        self._rest = b""
        self._replies: list[bytes] = []
        self.acknowledged = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.setblocking(False)  # noqa: FBT003 - its only form

    @property
    def events(self) -> int:
        """What to wait for: a reply, and room when the daemon took no more."""
        return select.POLLIN | (select.POLLOUT if self._rest else 0)

    @property
    def spent(self) -> bool:
        """Whether all that was made is sent."""
        return self._next == len(self._blocks)

    @property
    def waiting(self) -> int:
        """Requests sent, or begun to be, and not answered."""
        return self._next * BLOCK - self.acknowledged

    def send(self, *, more: bool) -> None:
        """Send what is begun, and `more` as far as the window allows."""
        while self._rest or (more and not self.spent and self.waiting + BLOCK <= WINDOW):
            if not self._rest:
                self._rest = self._blocks[self._next]
                self._next += 1
            try:
                self._rest = self._rest[self.socket.send(self._rest) :]
            except BlockingIOError:
                return

    def receive(self) -> None:
        """Take what is there and count the replies in it. Raises `ConnectionError` at the stream's end."""
        piece = self.socket.recv(1 << 20)
        if not piece:
            raise ConnectionError("the daemon hung up")
        self._replies.append(piece)
        self.acknowledged += piece.count(b"\n")

    def wrong(self) -> str | None:
        """What is wrong with the first reply that is not a success or not in its place."""
        for number, line in enumerate(b"".join(self._replies).splitlines()):
            reply = orjson.loads(line)
            data = reply.get("data")
            if reply.get("correlation_id") != number or type(data) is not dict or "error" in data:
                return f"reply {number} is {line[:200].decode(errors='replace')}"
        return None


def drive(streams: list[Stream], warm_s: float, seconds: float) -> tuple[int, float]:
    """Keep every window full for that long; the publishes acknowledged in the time that counts, and it."""
    begun = time.perf_counter()
    counted_from, before = begun, 0
    for stream in streams:
        stream.send(more=True)
    poll, by_fd = _poll(streams)
    while (now := time.perf_counter()) < begun + warm_s + seconds and not all(one.spent for one in streams):
        if counted_from == begun and now >= begun + warm_s:
            counted_from, before = now, _acknowledged(streams)
        _turn(poll, by_fd, more=True)
    return _acknowledged(streams) - before, time.perf_counter() - counted_from


def drain(streams: list[Stream]) -> None:
    """Take the replies that are still to come. Raises `TimeoutError`."""
    poll, by_fd = _poll(streams)
    while any(stream.waiting for stream in streams):
        _turn(poll, by_fd, more=False)


def _poll(streams: list[Stream]) -> tuple[select.poll, dict[int, Stream]]:
    poll = select.poll()
    for stream in streams:
        poll.register(stream.socket, stream.events)
    return poll, {stream.socket.fileno(): stream for stream in streams}


def _turn(poll: select.poll, by_fd: dict[int, Stream], *, more: bool) -> None:
    ready = poll.poll(PATIENCE_MS)
    if not ready:
        raise TimeoutError(f"the daemon has answered nothing for {PATIENCE_MS / 1000:g} s")
    for fd, happened in ready:
        stream = by_fd[fd]
        if happened & ~select.POLLOUT:
            stream.receive()
        stream.send(more=more)
        poll.modify(fd, stream.events)


def _acknowledged(streams: list[Stream]) -> int:
    return sum(stream.acknowledged for stream in streams)


def main(plan: Plan) -> None:
    """Do the plan, in step with the parent."""
    count = int((plan.warm_s + plan.seconds) * PER_SECOND) // BLOCK * BLOCK
    streams = [Stream(plan.path, connection, count) for connection in range(plan.connections)]
    _say("ready")
    sys.stdin.readline()
    publishes, seconds = drive(streams, plan.warm_s, plan.seconds)
    _say("over")
    drain(streams)
    wrong = next((text for stream in streams if (text := stream.wrong())), None)
    outcome = Outcome(publishes, seconds, [stream.acknowledged for stream in streams], wrong)
    _say(json.dumps(asdict(outcome)))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
