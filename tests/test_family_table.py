"""The process table, by /proc and by ps: what it tells, and whom its signals reach."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ksi_daemon import proctable
from ksi_daemon.proctable import Proc, Process, Ps


@pytest.fixture
def start():
    """`start(words, **variables)`: a process of ours, killed at the end."""
    children = []

    def begin(*words, **variables):
        env = {"PATH": os.environ["PATH"], **variables}
        children.append(subprocess.Popen(words, env=env, start_new_session=True))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.wait()


def until(true):
    """Wait for a condition."""
    while not true():
        time.sleep(0.002)


def entry(pid):
    """The process of that pid in the table."""
    return next(process for process in Proc().look() if process.pid == pid)


def test_both_tables_say_the_same(start):
    """Ps has whole seconds and process groups, otherwise it sees what /proc says."""
    child = start("sleep", "100")
    seen = entry(child.pid)
    told = next(process for process in Ps().look() if process.pid == child.pid)

    assert (seen.parent, seen.group, seen.alive) == (os.getpid(), child.pid, True)
    assert told[:3] == seen[:3]
    assert Proc().now() - 500 <= seen.start <= Proc().now() + 1
    assert abs(told.start - time.time()) < 60


def test_a_name_with_brackets_and_blanks_misleads_nobody(tmp_path, start):
    """A program may call itself anything, also `) Z 1 1`."""
    program = tmp_path / ") Z 1 1 ("
    program.symlink_to("/bin/sleep")
    child = start(str(program), "100")
    until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == ") Z 1 1 (\n")

    assert entry(child.pid)[:3] == (child.pid, os.getpid(), child.pid)
    assert entry(child.pid).alive


def test_a_mark_is_its_whole_value(start):
    """Of the first variable of that very name."""
    child = start("sleep", "100", OTHER="KSI_TURN=x", XKSI_TURN="y", KSI_TURN="a=b c")
    bare = start("env", "-i", "sleep", "100")
    until(lambda: Proc().mark(child.pid) and b"sleep" in (proctable._read(bare.pid, "cmdline") or b"")[:6])

    assert Proc().mark(child.pid) == "a=b c"
    assert Proc().mark(bare.pid) is None
    assert Proc().mark(2**22) is None


def test_another_process_of_that_pid_is_never_signalled(start):
    """The start tells them apart: a signal and a status are only for the process that was seen."""
    child = start("sleep", "100")
    other = entry(child.pid)._replace(start=1)
    Proc().send(other, signal.SIGKILL)
    child.send_signal(0)

    assert not Proc().reap(other)
    assert not Proc().reap(entry(child.pid))
    assert entry(child.pid).alive


def test_without_descriptors_of_processes_pids_do(start, monkeypatch):
    """An old kernel, or a sandbox that refuses pidfd_open."""

    def refuse(_pid):
        raise OSError(errno.ENOSYS, "none")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    child = start("sleep", "100")
    Proc().send(entry(child.pid), signal.SIGKILL)
    until(lambda: not entry(child.pid).alive)

    assert Proc().reap(entry(child.pid))
    assert not Proc().reap(Process(child.pid, 0, 0, 0, alive=False))


def test_a_table_that_cannot_be_read_is_an_error(monkeypatch):
    """A part of it would let somebody live."""

    def refuse(*_args):
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="too many"):
            Proc().look()
        patch.undo()
        patch.setenv("PATH", "/missing")
        with pytest.raises(OSError):  # noqa: PT011 - any will do
            Ps().look()


def test_ps_that_fails_is_an_os_error(tmp_path, monkeypatch):
    """So that whoever looks knows only one kind of error."""
    program = tmp_path / "ps"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(OSError, match="ps failed"):
        Ps().look()


def test_a_process_whose_first_thread_ended_lives(tmp_path, start):
    """It is shown as a zombie, and yet it can be killed, and must be."""
    code = (
        "import ctypes, pathlib, sys, threading, time\n"
        "def stay():\n pathlib.Path(sys.argv[1]).touch()\n time.sleep(600)\n"
        "threading.Thread(target=stay).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    child = start(sys.executable, "-c", code, str(tmp_path / "began"))
    until(lambda: (tmp_path / "began").exists() and "Z" in Path(f"/proc/{child.pid}/stat").read_text()[:40])

    assert entry(child.pid).alive
    assert not Proc().reap(entry(child.pid))
