"""The pinger, a process of its own: one `system:health` at a time on a connection of its own, each timed.

It says `ready`, begins when a line comes on stdin, and ends with stdin; then it says its figures, as one line
of JSON. Its own process, so that the load generator's work is in no figure.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

from ksi_migrate.bench_figures import percentile

BETWEEN_S: Final = 0.002
PATIENCE_S: Final = 15.0
REQUEST: Final = b'{"event":"system:health","data":{}}\n'


@dataclass(frozen=True, slots=True)
class Pings:
    """How long a ping takes; `count` is how many the figures speak for, None for none."""

    p50_ms: float | None
    p99_ms: float | None
    count: int


def ping(connection: socket.socket) -> float:
    """Send one and wait for its reply; milliseconds. Raises `ConnectionError`."""
    begun = time.perf_counter()
    connection.sendall(REQUEST)
    reply = b""
    while not reply.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the daemon hung up")
        reply += piece
    return (time.perf_counter() - begun) * 1e3


def main(path: str, warm_s: float) -> None:
    """Ping until stdin ends; those of the first `warm_s` seconds do not count."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    connection.connect(path)
    _say("ready")
    sys.stdin.readline()
    counts_from = time.perf_counter() + warm_s
    found: list[float] = []
    while not select.select([sys.stdin], [], [], BETWEEN_S)[0]:
        counts = time.perf_counter() >= counts_from
        took = ping(connection)
        if counts:
            found.append(took)
    _say(json.dumps(asdict(Pings(percentile(found, 50), percentile(found, 99), len(found)))))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
