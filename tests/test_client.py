"""The commands' own client, against a server that does whatever the test wants."""

from __future__ import annotations

import contextlib
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import transport
from ksi_daemon.client import Client, Unreachable, ask

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def peer(path: Path, talk: Callable[[socket.socket, dict[str, Any]], None]) -> Iterator[None]:
    """A server that reads one request of one client and then does as it likes."""
    bound = transport.bind(path)
    bound.setblocking(True)  # noqa: FBT003 - its only form
    bound.listen()

    def serve() -> None:
        connection, _ = bound.accept()
        with connection, connection.makefile("rb") as file:
            talk(connection, json.loads(file.readline()))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        bound.close()


def reply(request: dict[str, Any], **data: Any) -> bytes:
    """A reply's line."""
    return (
        json.dumps({"event": "e", "data": data, "correlation_id": request["correlation_id"]}).encode() + b"\n"
    )


def test_frames_before_the_reply_are_passed_over(tmp_path: Path) -> None:
    """Unsolicited frames, others' replies and lines that are no object are not taken for the reply."""

    def talk(connection: socket.socket, request: dict[str, Any]) -> None:
        connection.sendall(b'{"event": "x", "data": {}}\n{"event": "e", "correlation_id": "z"}\n')
        for piece in (reply(request, n=1)[:20], reply(request, n=1)[20:]):
            connection.sendall(piece)

    with peer(tmp_path / "s", talk):
        found = ask(tmp_path / "s", "e", {"x": 1})

    assert found["data"] == {"n": 1}


def test_an_error_without_event_is_the_reply(tmp_path: Path) -> None:
    """Shape 1 names no event and no correlation id, and is still our answer."""

    def talk(connection: socket.socket, _request: dict[str, Any]) -> None:
        connection.sendall(b'{"error": "no", "code": "invalid_request"}\n')

    with peer(tmp_path / "s", talk):
        assert ask(tmp_path / "s", "e") == {"error": "no", "code": "invalid_request"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"", "it hung up"), (b'{"half', "it hung up"), (b"not json\n", "it speaks no json")],
)
def test_a_peer_that_does_not_answer_is_unreachable(tmp_path: Path, line: bytes, reason: str) -> None:
    """A hang-up or noise instead of a reply is one error, with the path, the reason and what to do."""

    def talk(connection: socket.socket, _request: dict[str, Any]) -> None:
        connection.sendall(line)

    with peer(tmp_path / "s", talk), pytest.raises(Unreachable) as raised:
        ask(tmp_path / "s", "e")

    assert str(raised.value).startswith(f"no daemon answers on {tmp_path / 's'}: {reason}")
    assert str(raised.value).endswith("; start one with ksi-daemon start")


def test_a_silent_peer_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    """The timeout is for the whole request: frames that keep coming do not extend it."""

    def talk(connection: socket.socket, _request: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b'{"event": "x"}\n')

    with peer(tmp_path / "s", talk), pytest.raises(Unreachable, match=r"no reply within 0\.2 s|timed out"):
        ask(tmp_path / "s", "e", timeout=0.2)


@pytest.mark.parametrize("kind", ["nothing", "stale", "too long"])
def test_no_daemon_is_unreachable(tmp_path: Path, kind: str) -> None:
    """No socket, one that nobody serves, and a path that cannot be one."""
    path = tmp_path / ("s" * (200 if kind == "too long" else 1))
    if kind == "stale":
        transport.bind(path).close()

    with pytest.raises(
        Unreachable, match={"nothing": "no such file", "stale": "refused"}.get(kind, "200|bytes")
    ):
        ask(path, "e")


def test_frames_come_until_the_end(tmp_path: Path) -> None:
    """After a reply everything that comes is given, also what came with it, until the daemon hangs up."""

    def talk(connection: socket.socket, request: dict[str, Any]) -> None:
        connection.sendall(reply(request) + b'{"event": "x"}\n[]\n{"event": "y"}\n')

    with peer(tmp_path / "s", talk), Client(tmp_path / "s") as client:
        client.request("e")
        found = list(client.frames())

    assert found == [{"event": "x"}, {}, {"event": "y"}]
