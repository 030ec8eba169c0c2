"""A real daemon process on a scratch root, and raw connections to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ksi_daemon import client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPO = Path(__file__).parent.parent
PATIENCE = 30.0
"""Seconds for anything that takes well under one on an idle machine."""


def write_flags(root: Path, **stages: str) -> None:
    """The project's flags.yaml with some stages changed, put in place at once."""
    text = (REPO / "flags.yaml").read_text(encoding="utf-8")
    for name, stage in stages.items():
        head, mark, tail = text.partition("\ncomponents:")
        text = head + mark + re.sub(rf"(\n  {name}:) \w+", rf"\1 {stage}", tail)
    new = root / "flags.yaml.new"
    new.write_text(text, encoding="utf-8")
    new.replace(root / "flags.yaml")


def environment(**extra: str) -> dict[str, str]:
    """Ours without the settings of whoever runs the tests, and with `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KSI_", "NOTIFY_"))}
    return {**kept, "PYTHONPATH": str(REPO), "NO_COLOR": "1", **extra}


def command(*words: str) -> list[str]:
    """The argument list of a `ksi-daemon` command."""
    return [sys.executable, "-m", "ksi_daemon", *words]


class Wire:
    """One raw connection: bytes out, frames in."""

    def __init__(self, path: Path, timeout: float = PATIENCE) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()

    def send(self, *requests: Mapping[str, Any] | bytes) -> None:
        """Each request as a line; bytes as they are."""
        lines = [item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n" for item in requests]
        self.socket.sendall(b"".join(lines))

    def frame(self) -> dict[str, Any] | None:
        """The next line; None at the end."""
        line = self._file.readline()
        return json.loads(line) if line else None

    def frames(self, count: int) -> list[dict[str, Any]]:
        """The next `count` lines, all of which must come."""
        found = [frame for frame in (self.frame() for _ in range(count)) if frame is not None]
        assert len(found) == count, f"the daemon hung up after {len(found)} of {count} frames"
        return found

    def rest(self) -> list[dict[str, Any]]:
        """Every line until the end."""
        return [json.loads(line) for line in self._file]

    def ask(self, event: str, **data: Any) -> Any:
        """The data of one request's reply, when nothing unasked comes before it."""
        self.send({"event": event, "data": data})
        frame = self.frame()
        assert frame is not None, "the daemon hung up"
        return frame["data"]


class Running:
    """A daemon process and what belongs to it."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes], env: dict[str, str]) -> None:
        own = {name: value for name, value in env.items() if name.startswith("KSI_")}
        place = Path(own.get("KSI_SOCKET_PATH", "var/run/daemon.sock"))
        self.root = root
        self.process = process
        self.pid = process.pid
        self.socket_path = root / place
        self.log_path = root / "stderr.log"

    def wire(self, timeout: float = PATIENCE) -> Wire:
        """A raw connection."""
        return Wire(self.socket_path, timeout)

    def ask(self, event: str, **data: Any) -> Any:
        """The data of one request's reply, on a connection of its own."""
        return client.ask(self.socket_path, event, data, PATIENCE)["data"]

    def wait_ready(self) -> None:
        """Until it answers; fails with its log when it ends instead."""
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            return (
                client.ask(self.socket_path, "system:health", timeout=PATIENCE)["data"]["status"] == "healthy"
            )
        except client.Unreachable:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL, at whatever moment this is."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def log(self) -> str:
        """What it wrote to standard error."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def bus(self) -> list[dict[str, Any]]:
        """The records of the bus log; each of its lines must be whole."""
        return lines_of(self.root / "var/logs/responses/message_bus.jsonl")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A log's records; fails when its last line is torn."""
    data = path.read_bytes() if path.exists() else b""
    assert not data or data.endswith(b"\n"), "the log has a torn tail"
    return [json.loads(line) for line in data.splitlines()]


@contextmanager
def running(
    root: Path, *, ready: bool = True, umask: int = 0o022, program: Sequence[str] = (), **env: str
) -> Iterator[Running]:
    """A daemon in the foreground on `root`, ready; killed at the end if it still runs.

    `program` starts another one than `ksi-daemon run`; the root is its last argument.
    """
    root.mkdir(exist_ok=True)
    if not (root / "flags.yaml").exists():
        write_flags(root)
    variables = (
        environment(KSI_LOG_FORMAT="json", **env) if "KSI_LOG_FORMAT" not in env else environment(**env)
    )
    with (root / "stderr.log").open("ab") as log:
        process = subprocess.Popen(
            [*(program or command("run", "--root")), str(root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables,
            umask=umask,
        )
    daemon = Running(root, process, variables)
    try:
        if ready:
            daemon.wait_ready()
        yield daemon
    finally:
        if process.poll() is None:
            daemon.kill()
