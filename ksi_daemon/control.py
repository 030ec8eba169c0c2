"""Start, stop and look after a daemon from outside its process; what is found comes back as reports."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon import process, transport, wire
from ksi_daemon.client import Client, Unreachable, ask
from ksi_daemon.errors import KsiError
from ksi_daemon.linefile import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ksi_daemon.settings import Settings

START_PATIENCE = 15.0
"""Seconds in which a daemon has to answer after its start."""

ANSWER_PATIENCE = 2.0
"""Seconds in which a running daemon has to answer."""

STOP_MARGIN = 2.0
"""Seconds beyond `KSI_STOP_TIMEOUT` before a daemon that was asked to stop is sent a signal."""

SIGNAL_PATIENCE = 3.0
"""Seconds that a daemon has to end after a signal."""

TAIL = 4000
"""Characters of the log that a failed start shows."""

_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Started:
    """A daemon that accepts requests; `already` when it ran before."""

    pid: int
    already: bool
    socket: str
    log: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """No daemon runs; `pid` is the one that ended, and `how` what ended it: `asked` or a signal's name."""

    pid: int | None
    how: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Restarted:
    """The daemon that ended, and the one that accepts requests now."""

    stopped: Stopped
    started: Started


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a daemon holds the root (`pid`; 0 if it cannot be told) and whether it answers.

    `uptime` is in seconds; `stages` names each component's stage in force.
    """

    running: bool
    pid: int | None
    uptime: float | None
    version: str | None
    stages: dict[str, str]
    problem: str | None


class NotStarted(KsiError):
    """The daemon ended, or does not answer; the message ends with the end of its log."""

    code = "not_started"

    def __init__(self, what: str, log: Path, since: int) -> None:
        tail = _tail(log, since)
        super().__init__(f"{what}; its log is {log}" + (f" and ends:\n{tail}" if tail else ""))


class NotStopped(KsiError):
    """The daemon still holds its root."""

    code = "not_stopped"

    def __init__(self, pid: int, why: str) -> None:
        super().__init__(f"the daemon (pid {pid or 'unknown'}) still runs: {why}")


class InvalidData(KsiError):
    """What should be sent is not a JSON object."""

    code = "invalid_json"

    def __init__(self, reason: str) -> None:
        super().__init__(f"--data cannot be sent: {reason}; give one JSON object")


def start(settings: Settings, patience: float = START_PATIENCE) -> Started:
    """Start a daemon in a session of its own and return when it accepts requests; harmless when one runs.

    Its output is appended to `daemon.log`, as JSON unless `KSI_LOG_FORMAT` says otherwise. Raises
    `NotStarted`.
    """
    began = time.monotonic()
    transport.check_path(settings.socket_path)
    log = settings.daemon_log_dir / "daemon.log"
    child, since = None, 0
    if process.holder(settings) is None:
        child, since = _spawn(settings, log)
    while time.monotonic() - began < patience:
        pid = process.holder(settings)
        if pid and pid == _answering(settings, 1.0):
            _let_go(child, pid)
            already = child is None or child.pid != pid
            return Started(pid, already, str(settings.socket_path), str(log), time.monotonic() - began)
        if child is not None and pid is None and child.poll() is not None:
            raise NotStarted(f"the daemon ended with exit code {child.returncode}", log, since)
        time.sleep(_POLL)
    _let_go(child, process.holder(settings))
    raise NotStarted(f"the daemon did not answer within {patience:g} s and was left running", log, since)


def stop(settings: Settings, *, force: bool = False) -> Stopped:
    """Ask the daemon to stop and return when it has let go of its root; harmless when none runs.

    One that does not stop gets SIGTERM, which ends it at once, and with `force` SIGKILL. Raises `NotStopped`.
    """
    began = time.monotonic()
    pid = process.holder(settings)
    if pid is None:
        return Stopped(None, None, 0.0)
    asked = _ask_to_stop(settings, pid)
    if asked and _gone(settings, settings.stop_timeout + STOP_MARGIN):
        return Stopped(pid, "asked", time.monotonic() - began)
    signals = (signal.SIGTERM, signal.SIGKILL) if force else (signal.SIGTERM,)
    for number in signals:
        _send_signal(settings, number)
        if _gone(settings, SIGNAL_PATIENCE if asked else settings.stop_timeout + STOP_MARGIN):
            return Stopped(pid, number.name, time.monotonic() - began)
    raise NotStopped(pid, "it does not end; stop it with --force, which loses what it has not written")


def restart(settings: Settings, *, force: bool = False) -> Restarted:
    """Stop, then start. Raises `NotStopped`, `NotStarted`."""
    stopped = stop(settings, force=force)
    return Restarted(stopped, start(settings))


def status(settings: Settings) -> Status:
    """What a daemon says of itself; one that does not answer is not `running`, and `problem` says why."""
    pid = process.holder(settings)
    if pid is None:
        return Status(running=False, pid=None, uptime=None, version=None, stages={}, problem=None)
    try:
        with Client(settings.socket_path, ANSWER_PATIENCE) as client:
            health = client.request("system:health")["data"]
            stages = client.request("migration:status")["data"]
    except (Unreachable, KeyError) as error:
        return Status(running=False, pid=pid, uptime=None, version=None, stages={}, problem=str(error))
    found = {row["name"]: row["effective"] for row in stages["components"]}
    return Status(
        running=True,
        pid=stages["pid"],
        uptime=health["uptime"],
        version=health["version"],
        stages=found,
        problem=None,
    )


def send(settings: Settings, event: str, data: bytes, timeout: float) -> dict[str, Any]:
    """One request with the JSON object `data`; the whole reply. Raises `InvalidData`, `Unreachable`."""
    try:
        value = wire.decode(data)
        wire.encode(value)
    except KsiError as error:
        raise InvalidData(str(error)) from None
    if not isinstance(value, dict):
        raise InvalidData(f"it is {wire.json_type(value)}")
    return ask(settings.socket_path, event, value, timeout)


def failed(reply: dict[str, Any]) -> bool:
    """Whether a reply tells an error, in whichever of the three shapes."""
    data = reply.get("data")
    return "error" in reply or (isinstance(data, dict) and "error" in data)


def watch(settings: Settings) -> Iterator[dict[str, Any]]:
    """The frames that the daemon sends unasked, until it hangs up. Raises `Unreachable`."""
    with Client(settings.socket_path) as client:
        client.request("migration:subscribe")
        yield from client.frames()


def _spawn(settings: Settings, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A daemon in a session of its own, and where in the log its own lines begin."""
    private_directory(log.parent)
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    environment = dict(os.environ)
    if "log_format" not in settings.model_fields_set:
        environment["KSI_LOG_FORMAT"] = "json"
    # -P: a module in the working directory must not become a part of the daemon
    arguments = [sys.executable, "-P", "-m", "ksi_daemon", "run", "--root", str(settings.root)]
    try:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            env=environment,
            start_new_session=True,
        )
        return child, os.fstat(fd).st_size
    finally:
        os.close(fd)


def _let_go(child: subprocess.Popen[bytes] | None, holder: int | None) -> None:
    """Leave the daemon to itself; but end a child that somebody else's daemon has forestalled.

    Else it would take the root over when that one is stopped.
    """
    if child is None or child.poll() is not None:
        return
    if holder and holder != child.pid:
        child.terminate()
        child.wait()
    else:
        child.returncode = 0  # it outlives us on purpose, so Popen need not warn of it


def _answering(settings: Settings, timeout: float) -> int | None:
    """The pid of whoever answers on the socket, which may be another root's daemon."""
    with contextlib.suppress(Unreachable, KeyError), Client(settings.socket_path, timeout) as client:
        client.request("system:health")
        return int(client.request("migration:status")["data"]["pid"])
    return None


def _ask_to_stop(settings: Settings, pid: int) -> bool:
    """Whether this root's own daemon was told over the socket."""
    if _answering(settings, ANSWER_PATIENCE) != pid:
        return False
    with contextlib.suppress(Unreachable):
        ask(settings.socket_path, "system:shutdown", timeout=ANSWER_PATIENCE)
    return True


def _send_signal(settings: Settings, number: signal.Signals) -> None:
    """To the present holder of the lock, which is alive as long as it holds it."""
    pid = process.holder(settings)
    if pid == 0:
        raise NotStopped(0, f"{settings.lock_path} does not name its pid; find it with fuser and end it")
    if pid is not None:
        try:
            os.kill(pid, number)
        except PermissionError:
            raise NotStopped(pid, "it belongs to another user; stop it as that user") from None
        except ProcessLookupError:
            return


def _gone(settings: Settings, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while process.holder(settings) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _tail(log: Path, since: int) -> str:
    """The end of what was logged from `since` on."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, os.fstat(file.fileno()).st_size - TAIL))
            return file.read(TAIL).decode("utf-8", "replace").strip()
    except OSError:
        return ""
