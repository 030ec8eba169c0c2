"""A small blocking client of the socket, for commands: one request, or the frames that come unasked."""

from __future__ import annotations

import itertools
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Self

import orjson

from ksi_daemon import transport
from ksi_daemon.errors import KsiError, SocketUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType


class Unreachable(KsiError):
    """No daemon answers on the socket."""

    code = "daemon_unreachable"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"no daemon answers on {path}: {reason}; start one with ksi-daemon start")


class Client:
    """One connection. `timeout` is in seconds, and for a whole request."""

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._rest = b""
        self._socket = _connect(path, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def request(self, event: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and return its whole reply; frames that come before it are passed over.

        Raises `Unreachable` when there is none in time.
        """
        number = f"{os.getpid()}-{next(self._numbers)}"
        request = {"event": event, "data": data or {}, "correlation_id": number}
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.sendall(orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE))
            while True:
                reply = self._frame(deadline)
                if reply.get("correlation_id") == number or "event" not in reply:
                    return reply
        except OSError as error:
            raise Unreachable(self._path, _reason(error)) from error

    def frames(self) -> Iterator[dict[str, Any]]:
        """Everything that the daemon sends, until it hangs up."""
        while True:
            try:
                yield self._frame(None)
            except OSError:
                return

    def _frame(self, deadline: float | None) -> dict[str, Any]:
        while b"\n" not in self._rest:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"no reply within {self._timeout:g} s")
            self._socket.settimeout(left)
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionResetError("it hung up")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise OSError(f"it speaks no JSON: {error}") from error
        return found if isinstance(found, dict) else {}


def ask(path: Path, event: str, data: dict[str, Any] | None = None, timeout: float = 5.0) -> dict[str, Any]:
    """One request on a connection of its own; the whole reply. Raises `Unreachable`."""
    with Client(path, timeout) as client:
        return client.request(event, data)


def _connect(path: Path, timeout: float) -> socket.socket:
    try:
        transport.check_path(path)
    except SocketUnusable as error:
        raise Unreachable(path, str(error)) from error
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.settimeout(timeout)
    try:
        found.connect(str(path))
    except OSError as error:
        found.close()
        raise Unreachable(path, _reason(error)) from error
    return found


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
