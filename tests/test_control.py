"""Start, stop, restart and status from outside: every way in which a daemon is there, not there, or stuck."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import control, process, settings
from tests.daemon import REPO, running, write_flags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER = """
import fcntl, os, signal, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.pwrite(fd, (sys.argv[2] if len(sys.argv) > 2 else str(os.getpid())).encode(), 0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A root with flags; whatever daemon holds it at the end is killed."""
    for name in list(os.environ):
        if name.startswith(("KSI_", "NOTIFY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    write_flags(tmp_path)
    yield tmp_path
    pid = process.holder(settings.load(tmp_path))
    if pid:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def stuck(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Something that holds the root's lock, answers nothing and ignores SIGTERM."""
    with _holder(root) as child:
        yield child
        child.kill()


def _holder(root: Path, *pid: str) -> subprocess.Popen[bytes]:
    lock = settings.load(root).lock_path
    lock.parent.mkdir(parents=True)
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock), *pid], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    return child


def test_a_start_returns_when_requests_are_accepted(root: Path) -> None:
    """The daemon answers at once, in a session of its own, and logs to its file, which is private."""
    found = settings.load(root)

    report = control.start(found)

    assert control.send(found, "system:health", b"{}", 5)["data"]["status"] == "healthy"
    assert (report.already, report.pid) == (False, process.holder(found))
    assert os.getsid(report.pid) == report.pid
    log = root / "var/logs/daemon/daemon.log"
    assert (report.log, log.stat().st_mode & 0o777) == (str(log), 0o600)
    assert log.read_text().startswith('{"')


def test_a_second_start_finds_the_first(root: Path) -> None:
    """It says so with the pid and starts nothing."""
    found = settings.load(root)
    first = control.start(found)

    second = control.start(found)

    assert (second.pid, second.already) == (first.pid, True)


def test_starts_at_once_make_one_daemon(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them wins; the others report it and leave no process that would take over when it is stopped."""
    found, reports, children, spawn = settings.load(root), [], [], control._spawn

    def noted(*args: Any) -> Any:
        child, since = spawn(*args)
        children.append(child)
        return child, since

    monkeypatch.setattr(control, "_spawn", noted)
    threads = [threading.Thread(target=lambda: reports.append(control.start(found))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    pid = process.holder(found)
    assert [report.pid for report in reports] == [pid] * 3
    assert [report.already for report in reports].count(False) == 1
    assert [child.pid for child in children if child.returncode == 0] == [pid]
    assert all(child.returncode for child in children if child.pid != pid)


def test_the_log_format_can_be_chosen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON is only the default of a daemon in the background."""
    monkeypatch.setenv("KSI_LOG_FORMAT", "console")

    report = control.start(settings.load(root))

    with open(report.log, encoding="utf-8") as log:
        assert "[info     ]" in log.read()


def test_a_module_in_the_working_directory_is_not_imported(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted `ksi_daemon` or `yaml.py` beside the user does not become the daemon."""
    (root / "ksi_daemon.py").write_text("raise SystemExit(99)")
    (root / "yaml.py").write_text("raise SystemExit(98)")
    monkeypatch.chdir(root)

    assert control.start(settings.load(root)).already is False


def test_a_failed_start_shows_the_end_of_its_own_log(root: Path) -> None:
    """The daemon's last words are in the message, and nothing of an earlier run."""
    found = settings.load(root)
    found.daemon_log_dir.mkdir(parents=True)
    (found.daemon_log_dir / "daemon.log").write_text("from before\n")
    found.socket_path.parent.mkdir(parents=True)
    found.socket_path.write_text("mine")

    with pytest.raises(control.NotStarted) as raised:
        control.start(found)

    assert "ended with exit code 1; its log is" in str(raised.value)
    assert "is there and is no socket; move it away" in str(raised.value)
    assert "from before" not in str(raised.value)


def test_another_roots_daemon_on_the_socket_is_not_taken_for_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start fails although somebody answers; stop and status say that none runs; the other one lives."""
    path = str(root / "shared.sock")
    with running(root / "other", KSI_SOCKET_PATH=path) as other:
        monkeypatch.setenv("KSI_SOCKET_PATH", path)
        found = settings.load(root)

        with pytest.raises(control.NotStarted, match="is served by another daemon"):
            control.start(found)
        assert control.stop(found).pid is None
        assert not control.status(found).running
        assert other.answers()


def test_one_that_does_not_answer_is_said_to_be_left_running(
    root: Path, stuck: subprocess.Popen[bytes]
) -> None:
    """A holder without an answer is neither started again nor called started."""
    with pytest.raises(
        control.NotStarted, match=r"did not answer within 0\.2 s and was left running; its log is"
    ):
        control.start(settings.load(root), patience=0.2)

    assert stuck.poll() is None


def test_a_log_that_is_a_link_is_refused(root: Path) -> None:
    """The daemon's output goes to no file that somebody else has named."""
    found = settings.load(root)
    found.daemon_log_dir.mkdir(parents=True)
    (found.daemon_log_dir / "daemon.log").symlink_to(root / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        control.start(found)

    assert not (root / "elsewhere").exists()


def test_a_stop_returns_when_the_root_is_free(root: Path) -> None:
    """The daemon was asked, has ended, and left neither socket nor PID file; a second stop is harmless."""
    found = settings.load(root)
    pid = control.start(found).pid

    first, second = control.stop(found), control.stop(found)

    assert (first.pid, first.how) == (pid, "asked")
    assert (second.pid, second.how) == (None, None)
    assert not found.socket_path.exists()
    assert not found.daemon_pid_file.exists()


def test_a_daemon_whose_socket_is_gone_is_stopped_by_signal(root: Path) -> None:
    """Nobody can ask it, so it gets SIGTERM."""
    found = settings.load(root)
    pid = control.start(found).pid
    found.socket_path.unlink()

    report = control.stop(found)

    assert (report.pid, report.how) == (pid, "SIGTERM")


def test_a_stopped_process_ends_only_by_force(
    root: Path, stuck: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `force` it is left alone and named; with it, it is killed, and the next start works."""
    monkeypatch.setenv("KSI_STOP_TIMEOUT", "0.1")
    monkeypatch.setattr(control, "STOP_MARGIN", 0.1)
    found = settings.load(root)

    with pytest.raises(control.NotStopped, match=rf"\(pid {stuck.pid}\) still runs: .* --force"):
        control.stop(found)
    assert stuck.poll() is None
    report = control.stop(found, force=True)

    assert (report.pid, report.how) == (stuck.pid, "SIGKILL")
    assert stuck.wait(10) == -signal.SIGKILL
    assert not control.start(found).already


def test_a_daemon_that_hangs_in_its_stop_is_hurried(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked and frozen, it gets SIGTERM and then, with force, SIGKILL."""
    monkeypatch.setattr(control, "ANSWER_PATIENCE", 0.2)
    monkeypatch.setattr(control, "SIGNAL_PATIENCE", 0.2)
    monkeypatch.setattr(control, "STOP_MARGIN", 0.1)
    monkeypatch.setenv("KSI_STOP_TIMEOUT", "0.1")
    found = settings.load(root)
    pid = control.start(found).pid
    os.kill(pid, signal.SIGSTOP)

    answered = control.status(found)
    report = control.stop(found, force=True)

    assert (answered.running, answered.pid) == (False, pid)
    assert answered.problem is not None
    assert "no daemon answers on" in answered.problem
    assert (report.pid, report.how) == (pid, "SIGKILL")


def test_a_holder_without_a_pid_is_not_signalled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that names nobody is said to be so, since signal 0's process group is not the daemon."""
    monkeypatch.setattr(control, "STOP_MARGIN", 0.1)
    with _holder(root, "?") as child:
        with pytest.raises(control.NotStopped, match="does not name its pid"):
            control.stop(settings.load(root), force=True)
        child.kill()


def test_a_daemon_of_another_user_is_not_ours_to_stop(
    root: Path, stuck: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's refusal says whose it is to stop."""

    def refuse(_pid: int, _number: int) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("ksi_daemon.control.os.kill", refuse)
        with pytest.raises(control.NotStopped, match="belongs to another user"):
            control.stop(settings.load(root))


def test_a_holder_that_ends_meanwhile_is_stopped(
    root: Path, stuck: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is gone when the signal is sent needs none."""
    kill = os.kill

    def gone(pid: int, _number: int) -> None:
        kill(pid, signal.SIGKILL)
        stuck.wait()
        raise ProcessLookupError

    with monkeypatch.context() as patch:
        patch.setattr("ksi_daemon.control.os.kill", gone)
        report = control.stop(settings.load(root))

    assert report.pid == stuck.pid


def test_a_restart_is_a_new_daemon(root: Path) -> None:
    """Stopped first, then started; with none running it is a start."""
    found = settings.load(root)

    first = control.restart(found)
    second = control.restart(found)

    assert first.stopped.pid is None
    assert second.stopped.pid == first.started.pid
    assert second.started.pid != first.started.pid


def test_status_names_the_stage_of_each_component(root: Path) -> None:
    """A running daemon with its pid, its age and what is in force; without one nothing."""
    found = settings.load(root)
    none = control.status(found)
    write_flags(root, messaging="async")
    pid = control.start(found).pid

    report = control.status(found)

    assert (none.running, none.pid, none.problem) == (False, None, None)
    assert (report.running, report.pid, report.problem) == (True, pid, None)
    assert (report.stages["messaging"], report.stages["completion"]) == ("async", "sync")
    assert len(report.stages) == 7
    assert report.uptime is not None
    assert 0 <= report.uptime < 60


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Invalid JSON"),
        (b"{oops}", "Invalid JSON"),
        (b"[1]", "it is an array"),
        (b'{"n": NaN}', "Invalid JSON"),
        (b'{"n": 99999999999999999999}', "integer beyond 64 bits"),
        (b"[" * 500 + b"]" * 500, "Recursion limit"),
    ],
)
def test_what_is_no_object_is_not_sent(root: Path, data: bytes, reason: str) -> None:
    """It is refused before anybody is asked, so without a daemon too."""
    with pytest.raises(control.InvalidData, match=reason):
        control.send(settings.load(root), "e", data, 1)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"event": "e", "data": {"status": "ok"}}, False),
        ({"event": "e", "data": []}, False),
        ({"event": "e", "data": {"error": "no"}}, True),
        ({"event": "e", "error": "no"}, True),
        ({"error": "no"}, True),
    ],
)
def test_all_three_error_shapes_are_failures(reply: dict, expected: bool) -> None:
    """An error at the top or inside the data, and nothing else."""
    assert control.failed(reply) is expected


def test_watch_gives_frames_until_the_daemon_ends(root: Path) -> None:
    """A changed stage and both frames of the stop arrive."""
    found = settings.load(root)
    control.start(found)
    frames: list[dict] = []
    first = threading.Event()

    def read() -> None:
        for frame in control.watch(found):
            frames.append(frame)
            first.set()

    reader = threading.Thread(target=read)
    reader.start()
    while not first.wait(0.3):
        stage = control.status(found).stages["messaging"]
        write_flags(root, messaging="sync" if stage == "async" else "async")
    control.stop(found)
    reader.join(10)

    names = [frame["event"] for frame in frames]
    assert names[0] == "migration:changed"
    assert names[-2:] == ["system:shutdown_notification", "system:shutdown_complete"]


def test_a_missing_log_has_no_end(tmp_path: Path) -> None:
    """A message about a start without a log is still a message."""
    assert (
        str(control.NotStarted("it ended", tmp_path / "no.log", 0))
        == f"it ended; its log is {tmp_path}/no.log"
    )


def test_a_socket_that_answers_something_else_is_no_daemon(root: Path) -> None:
    """A stranger that speaks JSON lines is neither asked to stop nor taken for a start."""
    found = settings.load(root)
    found.socket_path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(found.socket_path))
        stranger.listen()

        def serve() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b'{"error": "who?"}\n')
                connection.recv(1000)
                connection.sendall(b'{"error": "who?"}\n')

        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        found_pid = control._answering(found, 2.0)
        thread.join()

    assert found_pid is None
    assert time.monotonic() - began < 2
