"""The daemon as a process: one a root, private, stopped by signals and requests without loss."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
import structlog

from ksi_daemon import process, settings
from ksi_daemon.errors import DaemonRunning
from tests import families
from tests.daemon import PATIENCE, command, environment, lines_of, running, write_flags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIDES = ("sync", "async")


def mode(path: Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


# one a root


def test_a_second_daemon_names_the_first_and_leaves_it_alone(tmp_path: Path) -> None:
    """It ends with 1 and the first one's pid; the first keeps its socket, its PID file and its clients."""
    with running(tmp_path) as daemon, daemon.wire() as wire:
        socket_before = daemon.socket_path.stat().st_ino

        second = subprocess.run(
            command("run", "--root", str(tmp_path)),
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )

        assert second.returncode == 1
        assert f"a daemon already runs on {tmp_path} (pid {daemon.pid}); stop it with" in second.stderr
        assert wire.ask("system:health")["status"] == "healthy"
        assert daemon.socket_path.stat().st_ino == socket_before
        assert (tmp_path / "var/run/ksi_daemon.pid").read_text() == f"{daemon.pid}\n"


def test_what_a_crash_left_behind_is_replaced(tmp_path: Path) -> None:
    """After SIGKILL the stale socket, PID file and lock hold nobody up."""
    with running(tmp_path) as daemon:
        daemon.kill()
        left = daemon.socket_path.exists(), (tmp_path / "var/run/ksi_daemon.pid").read_text()

    with running(tmp_path) as second:
        pid = (tmp_path / "var/run/ksi_daemon.pid").read_text()
        assert process.holder(settings.load(tmp_path)) == second.pid

    assert left == (True, f"{daemon.pid}\n")
    assert pid == f"{second.pid}\n"


def test_a_clean_stop_leaves_no_socket_and_no_pid(tmp_path: Path) -> None:
    """Both are gone at the end, and nobody holds the root."""
    with running(tmp_path) as daemon:
        code = daemon.stop()

    assert code == 0
    assert sorted(path.name for path in (tmp_path / "var/run").iterdir()) == ["daemon.lock"]
    assert process.holder(settings.load(tmp_path)) is None


def test_a_foreign_file_at_the_socket_path_is_refused(tmp_path: Path) -> None:
    """The daemon does not start, says why, and touches neither the file nor a log."""
    path = tmp_path / "var/run/daemon.sock"
    path.parent.mkdir(parents=True)
    path.write_text("mine")

    with running(tmp_path, ready=False) as daemon:
        code = daemon.process.wait(PATIENCE)

    assert code == 1
    assert f"{path} is there and is no socket; move it away" in daemon.log()
    assert path.read_text() == "mine"
    assert not (tmp_path / "var/logs").exists()


def test_a_socket_of_another_roots_daemon_is_refused(tmp_path: Path) -> None:
    """Two roots with one socket path: the first daemon keeps it."""
    path = str(tmp_path / "shared.sock")
    with (
        running(tmp_path / "one", KSI_SOCKET_PATH=path) as first,
        running(tmp_path / "two", ready=False, KSI_SOCKET_PATH=path) as second,
    ):
        code = second.process.wait(PATIENCE)

        assert code == 1
        assert f"{path} is served by another daemon" in second.log()
        assert first.ask("migration:status")["pid"] == first.pid


def test_a_socket_path_that_is_too_long_is_a_clear_error(tmp_path: Path) -> None:
    """Said before anything of the root is made."""
    with running(tmp_path, ready=False, KSI_SOCKET_PATH="s" * 200) as daemon:
        code = daemon.process.wait(PATIENCE)

    assert code == 1
    assert "set KSI_SOCKET_PATH to a shorter one" in daemon.log()
    assert not (tmp_path / "var").exists()


def test_a_look_at_the_lock_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    """Somebody who asks who holds the root holds it for a moment; a start at that moment waits for it."""
    found = settings.load(tmp_path)
    with process._lock(found):
        assert process.holder(found) == os.getpid()
    fd = os.open(found.lock_path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)
    timer = threading.Timer(0.03, os.close, [fd])
    timer.start()

    with process._lock(found):
        held = process.holder(found)
    timer.join()

    assert held == os.getpid()


def test_a_holder_that_named_no_pid_is_unknown(tmp_path: Path) -> None:
    """A lock without a pid in it is held by somebody, of whom nothing is known."""
    found = settings.load(tmp_path)
    assert process.holder(found) is None
    found.lock_path.parent.mkdir(parents=True)
    with found.lock_path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert process.holder(found) == 0
        with pytest.raises(DaemonRunning, match="pid unknown"), process._lock(found):
            pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A planted link at the lock's place makes no file elsewhere."""
    (tmp_path / "var/run").mkdir(parents=True)
    (tmp_path / "var/run/daemon.lock").symlink_to(tmp_path / "elsewhere")

    with running(tmp_path, ready=False) as daemon:
        code = daemon.process.wait(PATIENCE)

    assert code == 1
    assert not (tmp_path / "elsewhere").exists()


# private


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_it_makes_is_private(tmp_path: Path, umask: int) -> None:
    """Directories are 0700, files and the socket 0600, whatever the umask."""
    with running(tmp_path, umask=umask) as daemon, daemon.wire() as wire:
        wire.ask("message:publish", agent_id="a", event_type="N")
        while not wire.ask("migration:status")["settled"]:  # state.json is written in the background
            pass
        found = {path: mode(path) for path in [tmp_path / "var", *(tmp_path / "var").rglob("*")]}
        daemon.stop()

    wanted = {path: 0o700 if path.is_dir() else 0o600 for path in found}
    names = {path.name for path in found}
    assert {"daemon.sock", "ksi_daemon.pid", "daemon.lock", "message_bus.jsonl", "state.json"} <= names
    assert {str(path): oct(bits) for path, bits in found.items() if bits != wanted[path]} == {}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_socket_is_bound_under_a_tight_umask(tmp_path: Path) -> None:
    """The kernel's own account: the umask is 0177 when the socket is bound, and no chmod follows on it."""
    write_flags(tmp_path)
    trace = tmp_path / "trace"
    calls = "trace=bind,chmod,fchmod,fchmodat,umask"
    daemon = subprocess.Popen(
        ["strace", "-f", "-qq", "-e", calls, "-o", str(trace), *command("run", "--root", str(tmp_path))],
        env=environment(),
        stderr=subprocess.PIPE,
    )
    path = tmp_path / "var/run/daemon.sock"
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline and daemon.poll() is None:
            if path.exists():
                break
            time.sleep(0.02)
    daemon.terminate()
    pid = process.holder(settings.load(tmp_path))
    if pid:
        os.kill(pid, signal.SIGTERM)
    daemon.communicate(timeout=PATIENCE)

    lines = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    bound = next(n for n, line in enumerate(lines) if line.startswith("bind(") and "daemon.sock" in line)
    umasks = [line for line in lines[:bound] if line.startswith("umask(")]
    assert umasks[-1].startswith("umask(0177)")
    assert [line for line in lines if "chmod" in line and "daemon.sock" in line] == []


def test_readiness_is_told_when_it_accepts_requests(tmp_path: Path) -> None:
    """READY comes when the socket answers, STOPPING when it no longer takes new work."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(PATIENCE)
        with running(tmp_path, ready=False, NOTIFY_SOCKET=str(tmp_path / "n")) as daemon:
            first = manager.recv(100)
            healthy = daemon.answers()
            daemon.stop()
            second = manager.recv(100)

    assert (first, healthy, second) == (b"READY=1", True, b"STOPPING=1")


# its exit code


class Brief:
    """A daemon that ends at once, as cleanly as it is told to; it notes what it found."""

    clean = True
    pid_file = ""

    def __init__(self, found: settings.Settings) -> None:
        self._settings = found

    async def serve(self, bound: socket.socket) -> bool:
        """Look around and end."""
        assert bound.getsockname() == str(self._settings.socket_path)
        type(self).pid_file = self._settings.daemon_pid_file.read_text()
        return self.clean


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Brief]]:
    """`process.run` with a brief daemon, in this process."""

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(process, "Daemon", Brief)
    monkeypatch.setattr(process, "favour_loop", lambda: None)
    monkeypatch.setattr("ksi_daemon.process.os._exit", leave)
    yield Brief
    families.stop_adopting()
    structlog.reset_defaults()


def test_a_clean_run_returns_0_and_leaves_nothing(tmp_path: Path, brief: type[Brief]) -> None:
    """While it runs its pid stands in the PID file; afterwards both files are gone and the umask is ours."""
    before = os.umask(0o027)
    try:
        code = process.run(settings.load(tmp_path))
    finally:
        after = os.umask(before)

    assert (code, brief.pid_file, after) == (0, f"{os.getpid()}\n", 0o027)
    assert sorted(path.name for path in (tmp_path / "var/run").iterdir()) == ["daemon.lock"]


def test_an_unclean_run_leaves_at_once(
    tmp_path: Path, brief: type[Brief], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for threads that may hang for ever, and the exit code is 1."""
    monkeypatch.setattr(brief, "clean", False)

    with pytest.raises(SystemExit) as raised:
        process.run(settings.load(tmp_path))

    assert raised.value.code == process.UNFINISHED
    assert process.holder(settings.load(tmp_path)) is None


# its manners


def test_sighup_reads_the_flags_again(tmp_path: Path) -> None:
    """The stage changes while the daemon runs, and subscribers are told by a frame."""
    with running(tmp_path, KSI_FILE_EVENTS="false") as daemon, daemon.wire() as wire:
        wire.ask("migration:subscribe")
        write_flags(tmp_path, messaging="async")
        daemon.process.send_signal(signal.SIGHUP)
        frame = wire.frame()
        assert frame is not None
        found = daemon.ask("migration:status")

    assert (frame["event"], frame["data"]["component"], frame["data"]["to"]) == (
        "migration:changed",
        "messaging",
        "async",
    )
    assert found["components"][0]["effective"] == "async"


def test_the_log_has_one_line_a_step(tmp_path: Path) -> None:
    """Start, readiness, stop and end are a JSON record each, and hostile requests add no broken line."""
    with running(tmp_path) as daemon, daemon.wire() as wire:
        wire.ask(
            "message:publish", agent_id="a\n\x1b[31m", event_type="N", message={"x": "1\n2\u2028\x1b[0m"}
        )
        wire.ask("evil\nname\x1b[2J")
        daemon.stop()
        (record,) = daemon.bus()

    events = [json.loads(line)["event"] for line in daemon.log().splitlines()]
    assert [event for event in events if event in {"starting", "ready", "stopping", "stopped"}] == [
        "starting",
        "ready",
        "stopping",
        "stopped",
    ]
    assert (record["from"], record["x"]) == ("a\n\x1b[31m", "1\n2\u2028\x1b[0m")
    assert (
        re.search(rb"[\x00-\x09\x0b-\x1f]", (tmp_path / "var/logs/responses/message_bus.jsonl").read_bytes())
        is None
    )


def test_whole_lines_only(tmp_path: Path) -> None:
    """The check above would see a torn tail."""
    (tmp_path / "log").write_bytes(b'{"a": 1}\n{"b"')

    with pytest.raises(AssertionError, match="torn tail"):
        lines_of(tmp_path / "log")
